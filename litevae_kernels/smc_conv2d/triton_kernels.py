"""How does a GPU make the self-modulated weight of Eq. 3, and its gradients? Triton kernels and their launchers.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses

One program an output row. A row is [I, K] in memory (contiguous) or [K, I] (channels_last); a program takes it in
blocks of whole input channels and keeps the first one, so that a row of one block is read once. No atomics: each row
writes its own share of the scales' gradient, and a second kernel adds them up.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.conventions import arithmetic_dtype, memory_format_of
from litevae_kernels.triton_rounding import rounded

FORWARD_ELEMENTS = 16384  # of a block, at most (float64: a quarter)
BACKWARD_ELEMENTS = 8192
ELEMENTS_A_WARP = 512  # (float64: half)
SHARES_BLOCK = {"BLOCK_O": 64, "BLOCK_I": 32}


@triton.jit
def smc_weight_fwd_kernel(
    weight, scales, gain, result, inputs, size, eps,
    BLOCK: tl.constexpr, BLOCK_I: tl.constexpr, ONE_BLOCK: tl.constexpr, TAPS: tl.constexpr, BLOCK_K: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, HAS_GAIN: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """w'[o] = gain * r * s w[o] with r = (sum over i,k of (s w[o])^2 + eps)^(-1/2)."""
    weight += tl.program_id(0).to(tl.int64) * size
    result += tl.program_id(0).to(tl.int64) * size
    offsets, i, mask = _block(0, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
    u = _load(scales + i, mask, ARITHMETIC) * _load(weight + offsets, mask, ARITHMETIC)
    total = _sum(u * u)
    if not ONE_BLOCK:
        for first in range(BLOCK_I, inputs, BLOCK_I):
            others, i, inside = _block(first, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
            more = _load(scales + i, inside, ARITHMETIC) * _load(weight + others, inside, ARITHMETIC)
            total += _sum(more * more)
    factor = 1.0 / tl.sqrt(total + eps)
    if HAS_GAIN:
        factor *= tl.load(gain).to(ARITHMETIC)
    tl.store(result + offsets, rounded(factor * u, result.dtype.element_ty), mask=mask)
    if not ONE_BLOCK:
        for first in range(BLOCK_I, inputs, BLOCK_I):
            others, i, inside = _block(first, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
            more = _load(scales + i, inside, ARITHMETIC) * _load(weight + others, inside, ARITHMETIC)
            tl.store(result + others, rounded(factor * more, result.dtype.element_ty), mask=inside)


@triton.jit
def smc_weight_bwd_kernel(
    grad, weight, scales, gain, weight_grad, scales_shares, gain_shares, inputs, size, eps,
    BLOCK: tl.constexpr, BLOCK_I: tl.constexpr, ONE_BLOCK: tl.constexpr, TAPS: tl.constexpr, BLOCK_K: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, HAS_GAIN: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """With u = s w, v = r u: du = gain r (grad - v sum(grad v)), dw = s du.

    Row o's shares: of ds, sum over k of (w du), in scales_shares[o, i]; of dgain, sum(grad v), in gain_shares[o].
    """
    o = tl.program_id(0).to(tl.int64)
    grad, weight, weight_grad = grad + o * size, weight + o * size, weight_grad + o * size
    scales_shares += o * inputs
    offsets, i, mask = _block(0, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
    g, w = _load(grad + offsets, mask, ARITHMETIC), _load(weight + offsets, mask, ARITHMETIC)
    s = _load(scales + i, mask, ARITHMETIC)
    squares, products = _sum(s * w * (s * w)), _sum(g * (s * w))
    if not ONE_BLOCK:
        for first in range(BLOCK_I, inputs, BLOCK_I):
            others, i, inside = _block(first, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
            u = _load(scales + i, inside, ARITHMETIC) * _load(weight + others, inside, ARITHMETIC)
            squares += _sum(u * u)
            products += _sum(_load(grad + others, inside, ARITHMETIC) * u)
    r = 1.0 / tl.sqrt(squares + eps)
    projection = r * products
    tl.store(gain_shares + o, projection)
    factor = r * tl.load(gain).to(ARITHMETIC) if HAS_GAIN else r
    du = factor * (g - r * (s * w) * projection)
    tl.store(weight_grad + offsets, rounded(s * du, weight_grad.dtype.element_ty), mask=mask)
    _store_shares(scales_shares, w * du, 0, inputs, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
    if not ONE_BLOCK:
        for first in range(BLOCK_I, inputs, BLOCK_I):
            others, i, inside = _block(first, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
            g, w = _load(grad + others, inside, ARITHMETIC), _load(weight + others, inside, ARITHMETIC)
            s = _load(scales + i, inside, ARITHMETIC)
            du = factor * (g - r * (s * w) * projection)
            tl.store(weight_grad + others, rounded(s * du, weight_grad.dtype.element_ty), mask=inside)
            _store_shares(scales_shares, w * du, first, inputs, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)


@triton.jit
def _block(
    first, inputs, size,
    BLOCK: tl.constexpr, BLOCK_I: tl.constexpr, TAPS: tl.constexpr, BLOCK_K: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Offsets in the row, input channels and mask of BLOCK_I channels from `first` on: [BLOCK_K, BLOCK_I] or [BLOCK].

    In a contiguous row they follow one another, K elements each: so 16 bytes an access, whatever K is.
    """
    if CHANNELS_LAST:
        k, i = tl.arange(0, BLOCK_K)[:, None], first + tl.arange(0, BLOCK_I)[None, :]
        return k * inputs + i, i, (k < TAPS) & (i < inputs)
    else:
        element = tl.arange(0, BLOCK)
        offsets = first * TAPS + element
        return offsets, first + element // TAPS, (element < BLOCK_I * TAPS) & (offsets < size)


@triton.jit
def _load(pointers, mask, ARITHMETIC: tl.constexpr):
    return tl.load(pointers, mask=mask, other=0).to(ARITHMETIC)


@triton.jit
def _sum(x):
    return tl.sum(tl.ravel(x), axis=0)


@triton.jit
def _store_shares(
    shares, products, first, inputs,
    BLOCK: tl.constexpr, BLOCK_I: tl.constexpr, TAPS: tl.constexpr, BLOCK_K: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """The sum over K of a block's products, for each of its channels."""
    if CHANNELS_LAST:
        sums = tl.sum(products, axis=0)
    else:
        i, k = tl.arange(0, BLOCK_I)[:, None], tl.arange(0, BLOCK_K)[None, :]
        places = tl.ravel(tl.minimum(i * TAPS + k, BLOCK - 1))
        spread = tl.reshape(tl.gather(products, places, axis=0), (BLOCK_I, BLOCK_K))
        sums = tl.sum(tl.where(k < TAPS, spread, 0), axis=1)
    i = first + tl.arange(0, BLOCK_I)
    tl.store(shares + i, sums, mask=i < inputs)


@triton.jit
def smc_shares_kernel(
    scales_shares, gain_shares, scales_grad, gain_grad, outputs, inputs,
    BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, HAS_GAIN: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """ds[i] = sum over o of scales_shares[o, i], dgain = sum of gain_shares (0 without a gain)."""
    rows, i = tl.arange(0, BLOCK_O), tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    total = tl.zeros((BLOCK_O, BLOCK_I), dtype=ARITHMETIC)
    of_gain = tl.zeros((BLOCK_O,), dtype=ARITHMETIC)
    for first in range(0, outputs, BLOCK_O):
        o = first + rows
        offsets = o.to(tl.int64)[:, None] * inputs + i[None, :]
        total += tl.load(scales_shares + offsets, mask=(o < outputs)[:, None] & (i < inputs)[None, :], other=0)
        if HAS_GAIN:
            of_gain += tl.load(gain_shares + o, mask=o < outputs, other=0)
    tl.store(scales_grad + i, rounded(tl.sum(total, axis=0), scales_grad.dtype.element_ty), mask=i < inputs)
    if tl.program_id(0) == 0:
        tl.store(gain_grad, rounded(tl.sum(of_gain, axis=0), gain_grad.dtype.element_ty))


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
    """The whole row where it has at most that many elements, else as many channels as have."""
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
