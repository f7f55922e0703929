"""The Triton kernels of the gradients of the self-modulated weight.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses

No atomics: each row writes its own share of the gradients of scales and gain, and a second kernel adds the shares up.
"""

import triton
import triton.language as tl

from litevae_kernels.smc_conv2d.triton_tiles import load, row_block, sum_all
from litevae_kernels.triton_rounding import rounded


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
    offsets, i, mask = row_block(0, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
    g, w = load(grad + offsets, mask, ARITHMETIC), load(weight + offsets, mask, ARITHMETIC)
    s = load(scales + i, mask, ARITHMETIC)
    squares, products = sum_all(s * w * (s * w)), sum_all(g * (s * w))
    if not ONE_BLOCK:
        for first in range(BLOCK_I, inputs, BLOCK_I):
            others, i, inside = row_block(first, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
            u = load(scales + i, inside, ARITHMETIC) * load(weight + others, inside, ARITHMETIC)
            squares += sum_all(u * u)
            products += sum_all(load(grad + others, inside, ARITHMETIC) * u)
    r = 1.0 / tl.sqrt(squares + eps)
    projection = r * products
    tl.store(gain_shares + o, projection)
    factor = r * tl.load(gain).to(ARITHMETIC) if HAS_GAIN else r
    du = factor * (g - r * (s * w) * projection)
    tl.store(weight_grad + offsets, rounded(s * du, weight_grad.dtype.element_ty), mask=mask)
    _store_shares(scales_shares, w * du, 0, inputs, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
    if not ONE_BLOCK:
        for first in range(BLOCK_I, inputs, BLOCK_I):
            others, i, inside = row_block(first, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
            g, w = load(grad + others, inside, ARITHMETIC), load(weight + others, inside, ARITHMETIC)
            s = load(scales + i, inside, ARITHMETIC)
            du = factor * (g - r * (s * w) * projection)
            tl.store(weight_grad + others, rounded(s * du, weight_grad.dtype.element_ty), mask=inside)
            _store_shares(scales_shares, w * du, first, inputs, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)


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
    gain_total = tl.zeros((BLOCK_O,), dtype=ARITHMETIC)
    for first in range(0, outputs, BLOCK_O):
        o = first + rows
        offsets = o.to(tl.int64)[:, None] * inputs + i[None, :]
        total += tl.load(scales_shares + offsets, mask=(o < outputs)[:, None] & (i < inputs)[None, :], other=0)
        if HAS_GAIN:
            gain_total += tl.load(gain_shares + o, mask=o < outputs, other=0)
    tl.store(scales_grad + i, rounded(tl.sum(total, axis=0), scales_grad.dtype.element_ty), mask=i < inputs)
    if tl.program_id(0) == 0:
        tl.store(gain_grad, rounded(tl.sum(gain_total, axis=0), gain_grad.dtype.element_ty))
