"""How does GroupNorm+SiLU reach csrc/group_norm_silu/cpu.cpp? Allocates the results and passes pointers."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from litevae_kernels import native
from litevae_kernels.conventions import arithmetic_dtype, memory_format_of


def group_norm_silu(
    x: Tensor, skip: Tensor | None, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu`; x and skip are copied where they are not dense in x's memory format."""
    memory_format, arithmetic = memory_format_of(x), arithmetic_dtype(x.dtype)
    batch, channels, height, width = x.shape
    if skip is not None:
        channels += skip.shape[1]
    output = torch.empty((batch, channels, height, width), dtype=x.dtype, memory_format=memory_format)
    if output.numel() == 0:
        mean = torch.zeros((batch, num_groups), dtype=arithmetic)
        return output, mean, torch.full_like(mean, eps**-0.5)
    mean, rstd = (torch.empty((batch, num_groups), dtype=arithmetic) for _ in range(2))
    x, skip = _dense(x, memory_format), _dense(skip, memory_format)
    weight, bias = _parameter(weight, arithmetic), _parameter(bias, arithmetic)
    native.library().litevae_group_norm_silu(
        *_formula_arguments(x, skip, num_groups, weight, bias, memory_format),
        ctypes.c_double(eps),
        _pointer(output),
        _pointer(mean),
        _pointer(rstd),
        native.threads_for(output.numel()),
    )
    return output, mean, rstd


def group_norm_silu_backward(
    grad: Tensor,
    x: Tensor,
    skip: Tensor | None,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu_backward`."""
    memory_format, arithmetic = memory_format_of(x), arithmetic_dtype(x.dtype)
    x_grad = torch.empty(x.shape, dtype=x.dtype, memory_format=memory_format)
    skip_grad = None if skip is None else torch.empty(skip.shape, dtype=x.dtype, memory_format=memory_format)
    weight_grad, bias_grad = (torch.zeros(grad.shape[1], dtype=arithmetic) for _ in range(2))
    if grad.numel() > 0:
        grad, x, skip = _dense(grad.to(x.dtype), memory_format), _dense(x, memory_format), _dense(skip, memory_format)
        mean, rstd = mean.contiguous(), rstd.contiguous()
        spread_weight, spread_bias = _parameter(weight, arithmetic), _parameter(bias, arithmetic)
        native.library().litevae_group_norm_silu_backward(
            _pointer(grad),
            *_formula_arguments(x, skip, num_groups, spread_weight, spread_bias, memory_format),
            _pointer(mean),
            _pointer(rstd),
            _pointer(x_grad),
            _pointer(skip_grad),
            _pointer(weight_grad),
            _pointer(bias_grad),
            native.threads_for(grad.numel()),
        )
    return (
        x_grad,
        x.new_empty(0) if skip_grad is None else skip_grad,
        x.new_empty(0) if weight is None else weight_grad.to(weight.dtype),
        x.new_empty(0) if bias is None else bias_grad.to(bias.dtype),
    )


def _formula_arguments(
    x: Tensor,
    skip: Tensor | None,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    memory_format: torch.memory_format,
) -> tuple[Any, ...]:
    """What both C functions take of the formula, in their order, from x on."""
    batch, channels, height, width = x.shape
    skip_channels = 0 if skip is None else skip.shape[1]
    pixels = height * width
    return (
        _pointer(x),
        _pointer(skip),
        native.DTYPE_CODES[x.dtype],
        native.integers((batch, channels, skip_channels, num_groups, pixels)),
        memory_format == torch.channels_last or pixels == 1,  # one pixel lies the same either way, and is faster so
        _pointer(weight),
        _pointer(bias),
    )


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _dense(tensor: Any, memory_format: torch.memory_format) -> Any:
    return None if tensor is None else tensor.contiguous(memory_format=memory_format)


def _parameter(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if values is None else values.to(dtype).contiguous()
