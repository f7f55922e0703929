"""The Triton backend of the self-modulated weight: sizes of blocks, and the launches.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.devices import on_device
from litevae_kernels.formats import arithmetic_dtype, memory_format_of
from litevae_kernels.smc_conv2d.triton_backward import smc_shares_kernel, smc_weight_bwd_kernel
from litevae_kernels.smc_conv2d.triton_forward import smc_weight_fwd_kernel
from litevae_kernels.smc_conv2d.triton_tiles import Row

FORWARD_ELEMENTS = 16384  # at most, of a block (float64: a quarter)
BACKWARD_ELEMENTS = 8192
ELEMENTS_A_WARP = 512  # (float64: half)
SHARES_BLOCK = {"BLOCK_O": 64, "BLOCK_I": 32}
_TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


def smc_weight(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """As `reference.smc_weight`."""
    memory_format = memory_format_of(weight)
    weight, scales = weight.contiguous(memory_format=memory_format), scales.contiguous()
    result = torch.empty(weight.shape, dtype=dtype, device=weight.device, memory_format=memory_format)
    with on_device(weight.get_device()):
        smc_weight_fwd_kernel[(weight.shape[0],)](
            weight,
            scales,
            scales if gain is None else gain,
            result,
            weight.shape[1],
            eps,
            **_row_of(weight, FORWARD_ELEMENTS),
            HAS_GAIN=gain is not None,
        )
    return result


def smc_weight_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.smc_weight_backward`."""
    memory_format, arithmetic = memory_format_of(weight), arithmetic_dtype(weight.dtype)
    grad, weight = grad.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)
    scales = scales.contiguous()
    outputs, inputs = weight.shape[:2]
    weight_grad = torch.empty_like(weight, memory_format=memory_format)
    scales_grad, gain_grad = torch.empty_like(scales), weight.new_empty(()) if gain is None else torch.empty_like(gain)
    scales_shares = torch.empty((outputs, inputs), dtype=arithmetic, device=weight.device)
    gain_shares = torch.empty((outputs,), dtype=arithmetic, device=weight.device)
    with on_device(weight.get_device()):
        smc_weight_bwd_kernel[(outputs,)](
            grad,
            weight,
            scales,
            scales if gain is None else gain,
            weight_grad,
            scales_shares,
            gain_shares,
            inputs,
            eps,
            **_row_of(weight, BACKWARD_ELEMENTS),
            HAS_GAIN=gain is not None,
        )
        smc_shares_kernel[(triton.cdiv(inputs, SHARES_BLOCK["BLOCK_I"]),)](
            scales_shares,
            gain_shares,
            scales_grad,
            gain_grad,
            outputs,
            inputs,
            **SHARES_BLOCK,
            HAS_GAIN=gain is not None,
            ARITHMETIC=_TRITON_DTYPES[arithmetic],
        )
    return weight_grad, scales_grad, gain_grad


def _row_of(weight: Tensor, most_elements: int) -> dict[str, Any]:
    """The whole row as a block if it has at most `most_elements`, else as many of its channels as fit."""
    _, inputs, height, width = weight.shape
    taps, arithmetic = height * width, arithmetic_dtype(weight.dtype)
    block_taps, whole = triton.next_power_of_2(taps), triton.next_power_of_2(inputs)
    channels_last = taps == 1 or memory_format_of(weight) == torch.channels_last
    is_double = arithmetic == torch.float64
    most = most_elements // (4 if is_double else 1)

    def elements(channels: int) -> int:
        return channels * block_taps if channels_last else triton.next_power_of_2(channels * taps)

    one_block = elements(whole if channels_last else inputs) <= most
    block_inputs = whole if one_block else max(1, most // block_taps)
    block = elements(inputs if one_block and not channels_last else block_inputs)
    return {
        "ROW": Row(taps, channels_last, one_block, block_inputs, block_taps, block, _TRITON_DTYPES[arithmetic]),
        "num_warps": min(16, max(1, block // ELEMENTS_A_WARP * (2 if is_double else 1))),
    }
