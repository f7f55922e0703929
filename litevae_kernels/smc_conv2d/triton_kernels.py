"""How does a GPU make the self-modulated weight of Eq. 3, and its gradients? Triton kernels and their launchers.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses

One program an output row, in blocks of [BLOCK_I input channels, TAPS taps]; whatever the weight's memory format,
strides tell where an element lies. No atomics: each row writes its own share of the scales' gradient.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.conventions import arithmetic_dtype, memory_format_of
from litevae_kernels.triton_rounding import rounded

BLOCK_ELEMENTS = 2048


@triton.jit
def smc_weight_fwd_kernel(
    weight, scales, gain, result, inputs, taps, stride_i, stride_k, eps,
    BLOCK_I: tl.constexpr, TAPS: tl.constexpr, HAS_GAIN: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """w'[o] = gain * r * s w[o] with r = (sum over i,k of (s w[o])^2 + eps)^(-1/2)."""
    row = tl.program_id(0).to(tl.int64) * inputs * taps
    total = tl.zeros((BLOCK_I, TAPS), dtype=ARITHMETIC)
    for first in range(0, inputs, BLOCK_I):
        w, s, _, _ = _load_block(
            weight + row, scales, first, inputs, taps, stride_i, stride_k, BLOCK_I, TAPS, ARITHMETIC
        )  # fmt: skip
        total += (s * w) * (s * w)
    factor = 1.0 / tl.sqrt(tl.sum(total) + eps)
    if HAS_GAIN:
        factor *= tl.load(gain).to(ARITHMETIC)
    for first in range(0, inputs, BLOCK_I):
        w, s, offsets, mask = _load_block(
            weight + row, scales, first, inputs, taps, stride_i, stride_k, BLOCK_I, TAPS, ARITHMETIC
        )  # fmt: skip
        tl.store(result + row + offsets, rounded(factor * (s * w), result.dtype.element_ty), mask=mask)


@triton.jit
def smc_weight_bwd_kernel(
    grad, weight, scales, gain, weight_grad, scales_shares, gain_shares, inputs, taps, stride_i, stride_k, eps,
    BLOCK_I: tl.constexpr, TAPS: tl.constexpr, HAS_GAIN: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """With u = s w, v = r u: du = gain r (grad - v sum(grad v)), dw = s du.

    Row o's shares: of ds, sum over k of (w du), in scales_shares[o, i]; of dgain, sum(grad v), in gain_shares[o].
    """
    o = tl.program_id(0).to(tl.int64)
    row = o * inputs * taps
    squares = tl.zeros((BLOCK_I, TAPS), dtype=ARITHMETIC)
    products = tl.zeros((BLOCK_I, TAPS), dtype=ARITHMETIC)
    for first in range(0, inputs, BLOCK_I):
        w, s, offsets, mask = _load_block(
            weight + row, scales, first, inputs, taps, stride_i, stride_k, BLOCK_I, TAPS, ARITHMETIC
        )  # fmt: skip
        g = tl.load(grad + row + offsets, mask=mask, other=0).to(ARITHMETIC)
        squares += (s * w) * (s * w)
        products += g * (s * w)
    r = 1.0 / tl.sqrt(tl.sum(squares) + eps)
    projection = r * tl.sum(products)
    tl.store(gain_shares + o, projection)
    factor = r * tl.load(gain).to(ARITHMETIC) if HAS_GAIN else r
    for first in range(0, inputs, BLOCK_I):
        w, s, offsets, mask = _load_block(
            weight + row, scales, first, inputs, taps, stride_i, stride_k, BLOCK_I, TAPS, ARITHMETIC
        )  # fmt: skip
        g = tl.load(grad + row + offsets, mask=mask, other=0).to(ARITHMETIC)
        du = factor * (g - r * (s * w) * projection)
        tl.store(weight_grad + row + offsets, rounded(s * du, weight_grad.dtype.element_ty), mask=mask)
        i = first + tl.arange(0, BLOCK_I)
        tl.store(scales_shares + o * inputs + i, tl.sum(w * du, axis=1), mask=i < inputs)


@triton.jit
def _load_block(
    row, scales, first, inputs, taps, stride_i, stride_k, BLOCK_I: tl.constexpr, TAPS: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """One block of a row, its scales [BLOCK_I, 1], and where it lies."""
    i, k = first + tl.arange(0, BLOCK_I), tl.arange(0, TAPS)
    offsets = i[:, None] * stride_i + k[None, :] * stride_k
    mask = (i < inputs)[:, None] & (k < taps)[None, :]
    w = tl.load(row + offsets, mask=mask, other=0).to(ARITHMETIC)
    s = tl.load(scales + i, mask=i < inputs, other=0).to(ARITHMETIC)[:, None]
    return w, s, offsets, mask


def smc_weight(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """As `reference.smc_weight`."""
    memory_format = memory_format_of(weight)
    weight, scales = weight.contiguous(memory_format=memory_format), scales.contiguous()
    result = torch.empty(weight.shape, dtype=dtype, device=weight.device, memory_format=memory_format)
    with torch.cuda.device_of(weight):
        smc_weight_fwd_kernel[(weight.shape[0],)](
            weight, scales, scales if gain is None else gain, result, *_geometry(weight), eps,
            **_constants(weight, gain),
        )  # fmt: skip
    return result


def smc_weight_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.smc_weight_backward`."""
    memory_format, arithmetic = memory_format_of(weight), arithmetic_dtype(weight.dtype)
    grad, weight = grad.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)
    scales = scales.contiguous()
    weight_grad = torch.empty_like(weight, memory_format=memory_format)
    scales_shares = torch.empty(weight.shape[:2], dtype=arithmetic, device=weight.device)
    gain_shares = torch.empty(weight.shape[:1], dtype=arithmetic, device=weight.device)
    with torch.cuda.device_of(weight):
        smc_weight_bwd_kernel[(weight.shape[0],)](
            grad, weight, scales, scales if gain is None else gain, weight_grad, scales_shares, gain_shares,
            *_geometry(weight), eps, **_constants(weight, gain),
        )  # fmt: skip
    gain_grad = weight.new_zeros(()) if gain is None else gain_shares.sum().to(gain.dtype).reshape(gain.shape)
    return weight_grad, scales_shares.sum(0).to(scales.dtype), gain_grad


def _geometry(weight: Tensor) -> tuple[int, int, int, int]:
    """I, K = kh * kw, and the strides of both in a dense weight."""
    _, inputs, height, width = weight.shape
    if memory_format_of(weight) == torch.channels_last:
        return inputs, height * width, 1, inputs
    return inputs, height * width, height * width, 1


def _constants(weight: Tensor, gain: Tensor | None) -> dict[str, object]:
    _, inputs, height, width = weight.shape
    taps = triton.next_power_of_2(height * width)
    block = max(1, min(BLOCK_ELEMENTS // taps, triton.next_power_of_2(inputs)))
    arithmetic = tl.float64 if weight.dtype == torch.float64 else tl.float32
    return {"BLOCK_I": block, "TAPS": taps, "HAS_GAIN": gain is not None, "ARITHMETIC": arithmetic}
