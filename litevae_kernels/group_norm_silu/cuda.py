"""The CUDA C++ backend of GroupNorm+SiLU: launches the kernels of csrc/group_norm_silu/cuda.cu.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses
"""

from collections.abc import Sequence
from ctypes import c_double, c_int32, c_int64
from typing import Any, NamedTuple

import torch
from torch import Tensor

from litevae_kernels import native, nvrtc
from litevae_kernels.formats import arithmetic_dtype, memory_format_of
from litevae_kernels.group_norm_silu.results import empty_gradients, empty_results

THREADS, WARP = 256, 32  # kWalkThreads, kWarp of cuda_walk.h
MAX_PACKS = 16  # packs of 16 bytes for each thread
ENOUGH_BLOCKS = 1024  # to fill a large GPU; with fewer blocks a thread takes fewer packs
MAX_GRID_Y = 65535


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    skip: Tensor | None,
    keeps_statistics: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu`; x and skip are copied where they are not dense in x's memory format."""
    result, mean, rstd = empty_results(x, num_groups, skip)
    if result.numel() == 0:
        return result, mean.fill_(0), rstd.fill_(eps**-0.5)
    memory_format = memory_format_of(x)
    x, skip = x.contiguous(memory_format=memory_format), _dense(skip, memory_format)
    plan = _plan(x, num_groups, [result, x, skip])
    partials = mean.new_empty((*result.shape[:2], plan.splits, 2))
    plan.walk("moments", [x, skip, partials])
    plan.for_each_group("statistics", [partials, mean, rstd], [c_double(eps)])
    plan.walk("fwd", [x, skip, result, mean, rstd, *_parameter(weight), *_parameter(bias)])
    return result, mean, rstd


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
    x, grad = x.contiguous(memory_format=memory_format), grad.contiguous(memory_format=memory_format)
    skip = _dense(skip, memory_format)
    gradients = empty_gradients(x, weight, bias, skip)
    x_grad, weight_grad, bias_grad, skip_grad = gradients
    if grad.numel() == 0:
        weight_grad.zero_()
        bias_grad.zero_()
    else:
        mean, rstd = mean.contiguous(), rstd.contiguous()
        affine = [mean, rstd, *_parameter(weight), *_parameter(bias)]
        plan = _plan(x, num_groups, [grad, x, skip, x_grad, skip_grad])
        sums = mean.new_empty((*grad.shape[:2], plan.splits, 2))
        coefficients = mean.new_empty((*mean.shape, 2))
        plan.walk("sums", [grad, x, skip, sums, *affine])
        plan.for_each_group("coefficients", [sums, coefficients, rstd, *_parameter(weight)], [])
        plan.walk("bwd", [grad, x, skip, x_grad, None if skip is None else skip_grad, coefficients, *affine])
        if weight is not None or bias is not None:
            targets = (None if weight is None else weight_grad, None if bias is None else bias_grad)
            plan.for_each_channel("parameters", [sums, *_parameter(targets[0]), *_parameter(targets[1])])
    return gradients


class _Plan(NamedTuple):
    """How the work is divided; `sizes` are the arguments that all kernels end with."""

    x_type: str
    arithmetic: str
    pack: int
    channels_last: bool
    batch: int
    channels: int
    groups: int
    splits: int
    blocks_of_a_sample: int
    sizes: Sequence[Any]
    device: torch.device

    def walk(self, name: str, arguments: Sequence[Any]) -> None:
        types = f"{self.x_type}, {self.pack}, {str(self.channels_last).lower()}"
        grid = (self.blocks_of_a_sample, min(self.batch, MAX_GRID_Y), -(-self.batch // MAX_GRID_Y))
        self._launch(f"{name}_kernel<{types}>", grid, THREADS, [*arguments, *self.sizes])

    def for_each_group(self, name: str, arguments: Sequence[Any], more: Sequence[Any]) -> None:
        partials = self.channels // self.groups * self.splits
        threads = min(max(WARP, 1 << (partials - 1).bit_length()), THREADS)
        grid = (self.batch * self.groups, 1, 1)
        self._launch(f"{name}_kernel<{self.arithmetic}>", grid, threads, [*arguments, *self.sizes, *more])

    def for_each_channel(self, name: str, arguments: Sequence[Any]) -> None:
        sizes = [c_int64(self.batch), c_int64(self.channels), c_int32(self.splits)]
        grid = (-(-self.channels * WARP // THREADS), 1, 1)
        self._launch(f"{name}_kernel<{self.arithmetic}>", grid, THREADS, [*arguments, *sizes])

    def _launch(self, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any]) -> None:
        nvrtc.launch("group_norm_silu", f"litevae::group_norm_silu_{kernel}", grid, block, arguments, self.device)


def _plan(x: Tensor, num_groups: int, tensors: Sequence[Tensor | None]) -> _Plan:
    """`tensors` are accessed in packs; the first one has all channels."""
    whole = tensors[0]
    assert whole is not None
    batch, channels, height, width = whole.shape
    x_channels, pixels = x.shape[1], height * width
    # A sample of one pixel has the same layout in both formats, and is contiguous as channels_last.
    channels_last = pixels == 1 or not whole.is_contiguous()
    pack = 16 // x.element_size()
    runs = (x_channels, channels - x_channels) if channels_last else (pixels,)
    if any(run % pack for run in runs) or any(t is not None and t.data_ptr() % 16 for t in tensors):
        pack = 1
    for packs in (MAX_PACKS, MAX_PACKS // 2, MAX_PACKS // 4):
        if channels_last:
            threads_a_pixel = _share(x_channels // pack)[1]
            chunk = THREADS // threads_a_pixel * packs
            splits = -(-pixels // chunk)
            blocks = splits * sum(_share(tensor_channels // pack)[0] for tensor_channels in runs)
        else:
            chunk = WARP * pack * packs
            splits = -(-pixels // chunk)
            blocks = -(-channels * splits * WARP // THREADS)
        if batch * blocks >= ENOUGH_BLOCKS:
            break
    sizes = [
        *map(c_int64, (batch, x_channels, channels - x_channels, num_groups, pixels)),
        c_int32(chunk),
        c_int32(splits),
    ]
    arithmetic = nvrtc.CXX_TYPES[arithmetic_dtype(x.dtype)]
    x_type = nvrtc.CXX_TYPES[x.dtype]
    return _Plan(
        x_type, arithmetic, pack, channels_last, batch, channels, num_groups, splits, blocks, sizes, x.device
    )  # fmt: skip


def _share(packs: int) -> tuple[int, int]:
    """The number of blocks for the packs of a pixel, and of threads in each."""
    parts = -(-packs // THREADS)
    return parts, -(-packs // parts) if parts else 0


def _dense(tensor: Tensor | None, memory_format: torch.memory_format) -> Tensor | None:
    return None if tensor is None else tensor.contiguous(memory_format=memory_format)


def _parameter(parameter: Tensor | None) -> tuple[Tensor | None, c_int32]:
    """The kernels' two parameters for a vector of any floating dtype: its pointer, and Dtype of csrc/scalar_types.h."""
    if parameter is None:
        return None, c_int32(0)
    return parameter.contiguous(), c_int32(native.DTYPE_CODES[parameter.dtype])
