"""The CUDA C++ backend of the self-modulated weight: launches the kernels of csrc/smc_conv2d/cuda.cu."""

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from litevae_kernels import checks, nvrtc
from litevae_kernels.formats import arithmetic_dtype, memory_format_of

HELD_BYTES = 64  # that a thread keeps in registers, in the dtype of the arithmetic, where it reads vectors
HELD_SINGLES = 4  # elements that it keeps where it reads single ones
BLOCKS = (128, 512)  # threads of a block: few for small rows, so that many blocks fit a multiprocessor
WARP = 32


def smc_weight(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """As `reference.smc_weight`."""
    memory_format = memory_format_of(weight)
    weight = weight.contiguous(memory_format=memory_format)
    scales, gain = _in_one_dtype(weight, scales, gain)
    result = torch.empty(weight.shape, dtype=dtype, device=weight.device, memory_format=memory_format)
    _launch_rows("smc_weight_fwd_kernel", weight, scales, result, (weight, scales, gain, result), eps)
    return result


def smc_weight_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.smc_weight_backward`."""
    memory_format, arithmetic = memory_format_of(weight), arithmetic_dtype(weight.dtype)
    grad, weight = grad.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)
    spread, multiplier = _in_one_dtype(weight, scales, gain)
    weight_grad = torch.empty_like(weight, memory_format=memory_format)
    outputs, inputs = weight.shape[:2]
    shares = torch.empty((outputs, inputs + 1), dtype=arithmetic, device=weight.device)
    arguments = (grad, weight, spread, multiplier, weight_grad, shares)
    _launch_rows("smc_weight_bwd_kernel", weight, spread, grad, arguments, eps)
    scales_grad, gain_grad = torch.empty_like(spread), torch.empty((), dtype=spread.dtype, device=weight.device)
    types = f"{nvrtc.CXX_TYPES[arithmetic]}, {nvrtc.CXX_TYPES[spread.dtype]}"
    nvrtc.launch(
        "smc_conv2d",
        f"litevae::smc_shares_kernel<{types}, {BLOCKS[-1]}>",
        (inputs // WARP + 1, 1, 1),
        BLOCKS[-1],
        (shares, scales_grad, gain_grad, *map(ctypes.c_int32, (outputs, inputs, gain is not None))),
        weight.device,
    )
    like = weight.new_empty(()) if gain is None else gain
    return weight_grad, scales_grad.to(scales.dtype), gain_grad.to(like.dtype).reshape(like.shape)


def _launch_rows(
    kernel: str, weight: Tensor, scales: Tensor, other: Tensor, tensors: tuple[Tensor | None, ...], eps: float
) -> None:
    """One block an output row. The kernel is a template over the types of weight, scales, and result or grad."""
    outputs, inputs, height, width = weight.shape
    if inputs * height * width >= 2**30:
        raise checks.wrong_value("weight", "have fewer than 2^30 elements for each output channel", weight)
    channels_last = memory_format_of(weight) == torch.channels_last
    in_vectors = [scales, *(tensor for tensor in tensors if tensor is not None and tensor.ndim == 4)]
    is_aligned = all(tensor.data_ptr() % 16 == 0 for tensor in in_vectors)
    dtypes = (weight.dtype, scales.dtype, other.dtype)
    name, block, scalars = _plan(kernel, dtypes, inputs, height * width, channels_last, is_aligned, eps)
    nvrtc.launch("smc_conv2d", name, (outputs, 1, 1), block, (*tensors, *scalars), weight.device)


@functools.lru_cache(maxsize=1024)
def _plan(
    kernel: str, dtypes: tuple[torch.dtype, ...], inputs: int, taps: int, channels_last: bool, is_aligned: bool,
    eps: float,
) -> tuple[str, int, tuple[Any, ...]]:  # fmt: skip
    """The instance of the kernel's template, its threads a block, and its arguments after the tensors."""
    size, channels_last = inputs * taps, channels_last or taps == 1
    vector = 16 // max(dtypes[0].itemsize, dtypes[2].itemsize)
    if not is_aligned or (inputs if channels_last else size) % vector != 0:
        vector = 1
    is_double = dtypes[0] == torch.float64
    held = HELD_SINGLES if vector == 1 else HELD_BYTES // (8 if is_double else 4) // vector
    threads = -(-size // (vector * held * WARP)) * WARP  # in whole warps
    most_threads = next((most for most in BLOCKS if threads <= most), BLOCKS[-1])
    types = ", ".join(nvrtc.CXX_TYPES[dtype] for dtype in dtypes)
    name = f"litevae::{kernel}<{types}, {str(channels_last).lower()}, {vector}, {held}, {most_threads}>"
    scalars = (ctypes.c_int32(inputs), ctypes.c_int32(taps), (ctypes.c_double if is_double else ctypes.c_float)(eps))
    return name, min(threads, most_threads), scalars


def _in_one_dtype(weight: Tensor, scales: Tensor, gain: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scales and gain in the weight's dtype if both have it, else in the dtype of the arithmetic."""
    dtypes = {parameter.dtype for parameter in (scales, gain) if parameter is not None}
    dtype = weight.dtype if dtypes == {weight.dtype} else arithmetic_dtype(weight.dtype)
    return scales.to(dtype).contiguous(), None if gain is None else gain.to(dtype)
