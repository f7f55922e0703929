"""The CUDA C++ backend of GroupNorm+SiLU: launches the kernels of csrc/group_norm_silu/cuda.cu.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses
"""

import functools
from collections.abc import Sequence
from ctypes import c_double, c_int32, c_int64
from typing import Any, NamedTuple

import torch
from torch import Tensor

from litevae_kernels import native, nvrtc
from litevae_kernels.formats import arithmetic_dtype, memory_format_of
from litevae_kernels.group_norm_silu.results import Results, empty_gradients, empty_results, fill_without_elements

THREADS, WARP = 256, 32  # kWalkThreads, kWarp of cuda_walk.h
PACKS = (16, 8, 4)  # of 16 bytes for each thread: the first with enough blocks
ENOUGH_BLOCKS = 32  # for a sample: as a batch, enough to fill a large GPU; every block joins all chunks of its groups
MOST_CHUNKS = 64  # of the pixels; where there would be more, threads take more packs
MAX_GRID_Y = 65535

_DTYPES, _NO_DTYPE = {dtype: c_int32(code) for dtype, code in native.DTYPE_CODES.items()}, c_int32(0)


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    skip: Tensor | None,
    keeps_statistics: bool = True,
) -> Results:
    """As `reference.group_norm_silu`; mean and rstd are None where they are not kept.

    x and skip are copied where they are not dense in x's memory format.
    """
    output, mean, rstd = results = empty_results(x, num_groups, skip, keeps_statistics)
    if output.numel() == 0:
        return fill_without_elements(results, eps)
    memory_format = memory_format_of(x)
    x, skip = x.contiguous(memory_format=memory_format), _dense(skip, memory_format)
    plan = _plan_for(x, num_groups, output, x, skip)
    partials = x.new_empty((*output.shape[:2], plan.splits, 2), dtype=arithmetic_dtype(x.dtype))
    plan.walk(x.device, "moments", [x, skip, partials])
    plan.walk(
        x.device, "fwd", [x, skip, output, partials, mean, rstd, *_parameter(weight), *_parameter(bias), c_double(eps)]
    )
    return results


def group_norm_silu_backward(
    grad: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu_backward`; grad is copied where it is not dense in x's memory format."""
    memory_format = memory_format_of(x)
    x, grad = (tensor.to(x.dtype).contiguous(memory_format=memory_format) for tensor in (x, grad))
    skip = _dense(skip, memory_format)
    gradients = empty_gradients(x, weight, bias, skip)
    x_grad, weight_grad, bias_grad, skip_grad = gradients
    if grad.numel() == 0:
        weight_grad.zero_()
        bias_grad.zero_()
    else:
        mean, rstd = mean.contiguous(), rstd.contiguous()
        affine = [mean, rstd, *_parameter(weight), *_parameter(bias)]
        plan = _plan_for(x, num_groups, grad, x, skip, x_grad, skip_grad)
        sums = mean.new_empty((*grad.shape[:2], plan.splits, 2))
        plan.walk(x.device, "sums", [grad, x, skip, sums, *affine])
        plan.walk(x.device, "bwd", [grad, x, skip, x_grad, None if skip is None else skip_grad, sums, *affine])
        if weight is not None or bias is not None:
            targets = (None if weight is None else weight_grad, None if bias is None else bias_grad)
            plan.for_each_channel(x.device, "parameters", [sums, *_parameter(targets[0]), *_parameter(targets[1])])
    return gradients


class _Plan(NamedTuple):
    """How the work is divided, for tensors of one kind."""

    types: str  # of the kernels that walk: X, kPack, kChannelsLast
    arithmetic: str
    splits: int  # chunks of the pixels of a sample
    grid: tuple[int, int, int]  # of the kernels that walk
    channel_grid: tuple[int, int, int]  # of the one with a warp a channel
    sizes: tuple[Any, ...]  # the arguments that the kernels that walk end with: Sizes of cuda_walk.h
    channel_sizes: tuple[Any, ...]

    def walk(self, device: torch.device, name: str, arguments: Sequence[Any]) -> None:
        _launch(f"{name}_kernel<{self.types}>", self.grid, (*arguments, *self.sizes), device)

    def for_each_channel(self, device: torch.device, name: str, arguments: Sequence[Any]) -> None:
        _launch(f"{name}_kernel<{self.arithmetic}>", self.channel_grid, (*arguments, *self.channel_sizes), device)


def _launch(kernel: str, grid: tuple[int, int, int], arguments: Sequence[Any], device: torch.device) -> None:
    nvrtc.launch("group_norm_silu", f"litevae::group_norm_silu_{kernel}", grid, THREADS, arguments, device)


def _plan_for(x: Tensor, num_groups: int, *tensors: Tensor | None) -> _Plan:
    """The plan for kernels that access `tensors` in packs; the first one has all channels."""
    whole = tensors[0]
    assert whole is not None
    is_aligned = all(tensor is None or tensor.data_ptr() % 16 == 0 for tensor in tensors)
    # A sample of one pixel has the same layout in both formats, and is contiguous as channels_last.
    batch, channels, height, width = whole.shape
    channels_last = height * width == 1 or not whole.is_contiguous()
    return _plan(batch, x.shape[1], channels, height * width, num_groups, x.dtype, channels_last, is_aligned)


@functools.lru_cache(maxsize=1024)
def _plan(
    batch: int,
    x_channels: int,
    channels: int,  # of x and skip
    pixels: int,
    num_groups: int,
    dtype: torch.dtype,
    channels_last: bool,
    is_aligned: bool,
) -> _Plan:
    pack = 16 // dtype.itemsize
    runs = (x_channels, channels - x_channels) if channels_last else (pixels,)
    if not is_aligned or any(run % pack for run in runs):
        pack = 1
    most = -(-pixels // MOST_CHUNKS)
    for packs in PACKS:  # by a sample's sizes alone: its result does not depend on its batch
        if channels_last:
            slots = THREADS // _share(x_channels // pack)[1]
            chunk = slots * max(packs, -(-most // slots))
            splits = -(-pixels // chunk)
            blocks = splits * sum(_share(tensor_channels // pack)[0] for tensor_channels in runs)
        else:
            chunk = WARP * pack * max(packs, -(-most // (WARP * pack)))
            splits = -(-pixels // chunk)
            blocks = -(-channels * splits * WARP // THREADS)
        if blocks >= ENOUGH_BLOCKS:
            break
    lengths = map(c_int64, (batch, x_channels, channels - x_channels, num_groups, pixels))
    return _Plan(
        f"{nvrtc.CXX_TYPES[dtype]}, {pack}, {str(channels_last).lower()}",
        nvrtc.CXX_TYPES[arithmetic_dtype(dtype)],
        splits,
        (blocks, min(batch, MAX_GRID_Y), -(-batch // MAX_GRID_Y)),
        (-(-channels * WARP // THREADS), 1, 1),
        (*lengths, c_int32(chunk), c_int32(splits)),
        (c_int64(batch), c_int64(channels), c_int32(splits)),
    )


def _share(packs: int) -> tuple[int, int]:
    """The number of blocks for the packs of a pixel, and of threads in each."""
    parts = -(-packs // THREADS)
    return parts, -(-packs // parts) if parts else 0


def _dense(tensor: Tensor | None, memory_format: torch.memory_format) -> Tensor | None:
    return None if tensor is None else tensor.contiguous(memory_format=memory_format)


def _parameter(parameter: Tensor | None) -> tuple[Tensor | None, c_int32]:
    """The kernels' two parameters for a vector of any floating dtype: its pointer, and Dtype of csrc/scalar_types.h."""
    return (None, _NO_DTYPE) if parameter is None else (parameter.contiguous(), _DTYPES[parameter.dtype])
