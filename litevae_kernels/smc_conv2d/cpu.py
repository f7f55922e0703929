"""How does the self-modulated weight reach csrc/smc_conv2d/cpu.cpp? Allocates the results and passes pointers."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from litevae_kernels import native
from litevae_kernels.conventions import arithmetic_dtype, memory_format_of


def smc_weight(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """As `reference.smc_weight`."""
    memory_format = memory_format_of(weight)
    weight = weight.contiguous(memory_format=memory_format)
    scales = scales.to(arithmetic_dtype(weight.dtype)).contiguous()
    result = torch.empty(weight.shape, dtype=dtype, memory_format=memory_format)
    native.library().litevae_smc_weight(
        *_formula_arguments(weight, scales, gain, eps),
        ctypes.c_void_p(result.data_ptr()),
        native.DTYPE_CODES[dtype],
        native.threads_for(weight.numel()),
    )
    return result


def smc_weight_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.smc_weight_backward`."""
    memory_format, arithmetic = memory_format_of(weight), arithmetic_dtype(weight.dtype)
    grad, weight = grad.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)
    spread = scales.to(arithmetic).contiguous()
    weight_grad = torch.empty(weight.shape, dtype=weight.dtype, memory_format=memory_format)
    scales_grad, gain_grad = torch.empty_like(spread), torch.empty((), dtype=arithmetic)
    native.library().litevae_smc_weight_backward(
        ctypes.c_void_p(grad.data_ptr()),
        native.DTYPE_CODES[grad.dtype],
        *_formula_arguments(weight, spread, gain, eps),
        ctypes.c_void_p(weight_grad.data_ptr()),
        ctypes.c_void_p(scales_grad.data_ptr()),
        ctypes.c_void_p(gain_grad.data_ptr()),
        native.threads_for(weight.numel()),
    )
    gain_result = weight.new_zeros(()) if gain is None else gain_grad.to(gain.dtype).reshape(gain.shape)
    return weight_grad, scales_grad.to(scales.dtype), gain_result


def _formula_arguments(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float) -> tuple[Any, ...]:
    """What both C functions take of Eq. 3, in their order, from the weight on."""
    outputs, inputs, height, width = weight.shape
    return (
        ctypes.c_void_p(weight.data_ptr()),
        native.DTYPE_CODES[weight.dtype],
        ctypes.c_void_p(scales.data_ptr()),
        ctypes.c_double(1.0 if gain is None else gain.item()),
        ctypes.c_double(eps),
        ctypes.c_int64(outputs),
        ctypes.c_int64(inputs),
        ctypes.c_int64(height * width),
        memory_format_of(weight) == torch.channels_last,
    )
