"""The Triton backend of the self-modulated weight: sizes of blocks, and the launches, which are kept.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses
"""

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.devices import on_device
from litevae_kernels.formats import arithmetic_dtype, memory_format_of
from litevae_kernels.smc_conv2d.triton_backward import smc_shares_kernel, smc_weight_bwd_kernel
from litevae_kernels.smc_conv2d.triton_forward import smc_weight_fwd_kernel
from litevae_kernels.smc_conv2d.triton_tiles import Row
from litevae_kernels.triton_launch import Launch

FORWARD_ELEMENTS = 16384  # at most, of a block (float64: a quarter)
BACKWARD_ELEMENTS = 8192
ELEMENTS_A_WARP = 512  # (float64: half)
SHARES_BLOCK: dict[str, Any] = {"BLOCK_O": 64, "BLOCK_I": 32}
_TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


class Kind(NamedTuple):
    """All that launches depend on: they are kept by it."""

    shape: torch.Size  # of the weight
    channels_last: bool
    dtype: torch.dtype  # of the weight
    others: tuple[torch.dtype | None, ...]  # of its result or gradient, scales and gain
    eps: float
    device: int

    @property
    def has_gain(self) -> bool:
        return self.others[-1] is not None


def smc_weight(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """As `reference.smc_weight`."""
    memory_format = memory_format_of(weight)
    weight, scales = weight.contiguous(memory_format=memory_format), scales.contiguous()
    result = torch.empty(weight.shape, dtype=dtype, device=weight.device, memory_format=memory_format)
    kind = _kind_of(weight, result, scales, gain, eps, memory_format)
    with on_device(kind.device):
        _forward_launch(kind)(weight, scales, gain, result)
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
    kind = _kind_of(weight, grad, scales, gain, eps, memory_format)
    rows, sums = _backward_launches(kind)
    with on_device(kind.device):
        rows(grad, weight, scales, gain, weight_grad, scales_shares, gain_shares)
        sums(scales_shares, gain_shares, scales_grad, gain_grad)
    return weight_grad, scales_grad, gain_grad


def _kind_of(
    weight: Tensor, other: Tensor, scales: Tensor, gain: Tensor | None, eps: float, memory_format: torch.memory_format
) -> Kind:
    return Kind(
        weight.shape,
        memory_format is torch.channels_last,
        weight.dtype,
        (other.dtype, scales.dtype, None if gain is None else gain.dtype),
        eps,
        weight.get_device(),
    )


@functools.lru_cache(maxsize=1024)
def _forward_launch(kind: Kind) -> Launch:
    """smc_weight_fwd_kernel(weight, scales, gain, result)."""
    row, num_warps = _row_of(kind, FORWARD_ELEMENTS)
    outputs, inputs = kind.shape[:2]
    constants = {"ROW": row, "HAS_GAIN": kind.has_gain}
    return Launch(smc_weight_fwd_kernel, outputs, (inputs, kind.eps), constants, num_warps)


@functools.lru_cache(maxsize=1024)
def _backward_launches(kind: Kind) -> tuple[Launch, Launch]:
    """smc_weight_bwd_kernel(grad, weight, scales, gain, weight_grad, scales_shares, gain_shares), and
    smc_shares_kernel(scales_shares, gain_shares, scales_grad, gain_grad)."""
    row, num_warps = _row_of(kind, BACKWARD_ELEMENTS)
    outputs, inputs = kind.shape[:2]
    constants = {"ROW": row, "HAS_GAIN": kind.has_gain}
    rows = Launch(smc_weight_bwd_kernel, outputs, (inputs, kind.eps), constants, num_warps)
    constants = SHARES_BLOCK | {"HAS_GAIN": kind.has_gain, "ARITHMETIC": row.arithmetic}
    programs = triton.cdiv(inputs, SHARES_BLOCK["BLOCK_I"])
    return rows, Launch(smc_shares_kernel, programs, (outputs, inputs), constants)


def _row_of(kind: Kind, most_elements: int) -> tuple[Row, int]:
    """A block of the whole row if it has at most `most_elements`, else of as many channels as fit; and the warps."""
    _, inputs, height, width = kind.shape
    taps, arithmetic = height * width, arithmetic_dtype(kind.dtype)
    block_taps, whole = triton.next_power_of_2(taps), triton.next_power_of_2(inputs)
    channels_last = taps == 1 or kind.channels_last
    is_double = arithmetic == torch.float64
    most = most_elements // (4 if is_double else 1)

    def elements(channels: int) -> int:
        return channels * block_taps if channels_last else triton.next_power_of_2(channels * taps)

    one_block = elements(whole if channels_last else inputs) <= most
    block_inputs = whole if one_block else max(1, most // block_taps)
    block = elements(inputs if one_block and not channels_last else block_inputs)
    row = Row(taps, channels_last, one_block, block_inputs, block_taps, block, _TRITON_DTYPES[arithmetic])
    return row, min(16, max(1, block // ELEMENTS_A_WARP * (2 if is_double else 1)))
