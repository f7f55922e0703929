"""The C++ backend of the self-modulated weight: allocates results, passes pointers to csrc/smc_conv2d/cpu.cpp."""

import torch
from torch import Tensor

from litevae_kernels import native
from litevae_kernels.formats import arithmetic_dtype, dense, memory_format_of


def smc_weight(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """As `reference.smc_weight`."""
    memory_format = memory_format_of(weight)
    weight = weight.contiguous(memory_format=memory_format)
    scales = dense(scales, arithmetic_dtype(weight.dtype))
    result = torch.empty(weight.shape, dtype=dtype, memory_format=memory_format)
    _call("litevae_smc_weight", weight, scales, gain, eps, other=result, outputs=(result,))
    return result


def smc_weight_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.smc_weight_backward`."""
    memory_format, arithmetic = memory_format_of(weight), arithmetic_dtype(weight.dtype)
    grad, weight = grad.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)
    spread = dense(scales, arithmetic)
    weight_grad, scales_grad = torch.empty_like(weight), torch.empty_like(spread)
    gain_grad = torch.empty(() if gain is None else gain.shape, dtype=arithmetic)
    outputs = (weight_grad, scales_grad, gain_grad)
    _call("litevae_smc_weight_backward", weight, spread, gain, eps, other=grad, outputs=outputs)
    gain_grad = weight.new_zeros(()) if gain is None else dense(gain_grad, gain.dtype)
    return weight_grad, dense(scales_grad, scales.dtype), gain_grad


def _call(
    function: str,
    weight: Tensor,
    scales: Tensor,
    gain: Tensor | None,
    eps: float,
    other: Tensor,
    outputs: tuple[Tensor, ...],
) -> None:
    """Fills the struct SmcArguments; `other` is the forward's result or the backward's gradient of it."""
    output_channels, input_channels, height, width = weight.shape
    native.call(
        function,
        f"3P7q2d{len(outputs)}P",
        weight.data_ptr(),
        scales.data_ptr(),
        other.data_ptr(),
        native.DTYPE_CODES[weight.dtype],
        native.DTYPE_CODES[other.dtype],
        output_channels,
        input_channels,
        height * width,
        memory_format_of(weight) == torch.channels_last,
        native.threads_for(weight.numel()),
        1.0 if gain is None else gain.item(),
        eps,
        *[output.data_ptr() for output in outputs],
    )
