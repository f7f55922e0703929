"""The Triton backend of the self-modulated weight: sizes of blocks, and the launches.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.formats import arithmetic_dtype, memory_format_of
from litevae_kernels.smc_conv2d.triton_backward import smc_shares_kernel, smc_weight_bwd_kernel
from litevae_kernels.smc_conv2d.triton_forward import smc_weight_fwd_kernel

FORWARD_ELEMENTS = 16384  # at most, of a block (float64: a quarter)
BACKWARD_ELEMENTS = 8192
ELEMENTS_A_WARP = 512  # (float64: half)
SHARES_BLOCK = {"BLOCK_O": 64, "BLOCK_I": 32}


def smc_weight(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """As `reference.smc_weight`."""
    memory_format = memory_format_of(weight)
    weight, scales = weight.contiguous(memory_format=memory_format), scales.contiguous()
    result = torch.empty(weight.shape, dtype=dtype, device=weight.device, memory_format=memory_format)
    with torch.cuda.device_of(weight):
        smc_weight_fwd_kernel[(weight.shape[0],)](
            weight, scales, scales if gain is None else gain, result, weight.shape[1], weight[0].numel(), eps,
            **_block_of(weight, FORWARD_ELEMENTS), **_constants(weight, gain),
        )  # fmt: skip
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
    constants = _constants(weight, gain)
    with torch.cuda.device_of(weight):
        smc_weight_bwd_kernel[(outputs,)](
            grad, weight, scales, scales if gain is None else gain, weight_grad, scales_shares, gain_shares, inputs,
            weight[0].numel(), eps, **_block_of(weight, BACKWARD_ELEMENTS), **constants,
        )  # fmt: skip
        smc_shares_kernel[(triton.cdiv(inputs, SHARES_BLOCK["BLOCK_I"]),)](
            scales_shares, gain_shares, scales_grad, gain_grad, outputs, inputs, **SHARES_BLOCK, **constants
        )  # fmt: skip
    return weight_grad, scales_grad, gain_grad


def _block_of(weight: Tensor, most_elements: int) -> dict[str, Any]:
    """The whole row if it has at most `most_elements`, else as many of its channels as fit."""
    _, inputs, height, width = weight.shape
    taps = height * width
    block_k, whole = triton.next_power_of_2(taps), triton.next_power_of_2(inputs)
    channels_last = taps == 1 or memory_format_of(weight) == torch.channels_last
    is_double = weight.dtype == torch.float64
    most = most_elements // (4 if is_double else 1)

    def elements(channels: int) -> int:
        return channels * block_k if channels_last else triton.next_power_of_2(channels * taps)

    one_block = elements(whole if channels_last else inputs) <= most
    block_i = whole if one_block else max(1, most // block_k)
    block = elements(inputs if one_block and not channels_last else block_i)
    return {
        "BLOCK": block,
        "BLOCK_I": block_i,
        "ONE_BLOCK": one_block,
        "TAPS": taps,
        "BLOCK_K": block_k,
        "CHANNELS_LAST": channels_last,
        "num_warps": min(16, max(1, block // ELEMENTS_A_WARP * (2 if is_double else 1))),
    }


def _constants(weight: Tensor, gain: Tensor | None) -> dict[str, Any]:
    return {"HAS_GAIN": gain is not None, "ARITHMETIC": tl.float64 if weight.dtype == torch.float64 else tl.float32}
