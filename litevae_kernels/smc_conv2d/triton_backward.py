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
    grad,  # G, the gradient of w', [O, I, kh, kw], dense in the row's memory format
    weight,  # w, as grad
    scales,  # s, [I]
    gain,  # one element, read with HAS_GAIN
    weight_grad,  # result: dw, as weight
    scales_shares,  # result: each row's share of ds, [O, I] in the arithmetic's dtype
    gain_shares,  # result: each row's share of dgain, [O]
    inputs,  # I
    eps,
    ROW: tl.constexpr,
    HAS_GAIN: tl.constexpr,
):
    """With u = s w, r = (sum of u^2 + eps)^(-1/2) and v = r u, of one row:

    dgain = sum(G v)      du = gain r (G - v sum(G v))      dw = s du      ds[i] = sum over k of (w du)
    """
    o = tl.program_id(0).to(tl.int64)
    row = o * inputs * ROW.taps
    grad, weight, weight_grad = grad + row, weight + row, weight_grad + row
    scales_shares += o * inputs
    offsets, i, mask = row_block(0, inputs, ROW)
    g, w = load(grad + offsets, mask, ROW), load(weight + offsets, mask, ROW)  # the shape of a block
    s = load(scales + i, mask, ROW)
    squares, products = sum_all(s * w * (s * w)), sum_all(g * (s * w))
    if not ROW.one_block:
        for first in range(ROW.block_inputs, inputs, ROW.block_inputs):
            others, i, inside = row_block(first, inputs, ROW)
            u = load(scales + i, inside, ROW) * load(weight + others, inside, ROW)
            squares += sum_all(u * u)
            products += sum_all(load(grad + others, inside, ROW) * u)
    r = 1.0 / tl.sqrt(squares + eps)
    projection = r * products  # sum(G v)
    tl.store(gain_shares + o, projection)
    factor = r * tl.load(gain).to(ROW.arithmetic) if HAS_GAIN else r
    du = factor * (g - r * (s * w) * projection)
    tl.store(weight_grad + offsets, rounded(s * du, weight_grad.dtype.element_ty), mask=mask)
    _store_sums_over_taps(scales_shares, w * du, 0, inputs, ROW)
    if not ROW.one_block:
        for first in range(ROW.block_inputs, inputs, ROW.block_inputs):
            others, i, inside = row_block(first, inputs, ROW)
            g, w = load(grad + others, inside, ROW), load(weight + others, inside, ROW)
            s = load(scales + i, inside, ROW)
            du = factor * (g - r * (s * w) * projection)
            tl.store(weight_grad + others, rounded(s * du, weight_grad.dtype.element_ty), mask=inside)
            _store_sums_over_taps(scales_shares, w * du, first, inputs, ROW)


@triton.jit
def _store_sums_over_taps(shares, products, first, inputs, ROW: tl.constexpr):
    """The sums over k of a block's `products` to shares[i], for its channels i from `first` on."""
    if ROW.channels_last:
        sums = tl.sum(products, axis=0)  # [block_taps, block_inputs] -> [block_inputs]
    else:
        i, k = tl.arange(0, ROW.block_inputs)[:, None], tl.arange(0, ROW.block_taps)[None, :]
        places = tl.ravel(tl.minimum(i * ROW.taps + k, ROW.block - 1))
        spread = tl.reshape(tl.gather(products, places, axis=0), (ROW.block_inputs, ROW.block_taps))
        sums = tl.sum(tl.where(k < ROW.taps, spread, 0), axis=1)  # [block_inputs]
    i = first + tl.arange(0, ROW.block_inputs)
    tl.store(shares + i, sums, mask=i < inputs)


@triton.jit
def smc_shares_kernel(
    scales_shares,  # [O, I] in the arithmetic's dtype
    gain_shares,  # [O]
    scales_grad,  # result: ds, [I]
    gain_grad,  # result: dgain, one element; 0 without a gain
    outputs,  # O
    inputs,  # I
    BLOCK_O: tl.constexpr,  # rows that a program reads at a time
    BLOCK_I: tl.constexpr,  # columns of a program
    HAS_GAIN: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):
    """ds[i] = sum over o of scales_shares[o, i], dgain = sum over o of gain_shares[o]."""
    rows, i = tl.arange(0, BLOCK_O), tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    total = tl.zeros((BLOCK_O, BLOCK_I), dtype=ARITHMETIC)
    gain_total = tl.zeros((BLOCK_O,), dtype=ARITHMETIC)
    for first in range(0, outputs, BLOCK_O):
        o = first + rows
        offsets = o.to(tl.int64)[:, None] * inputs + i[None, :]  # [BLOCK_O, BLOCK_I]
        total += tl.load(scales_shares + offsets, mask=(o < outputs)[:, None] & (i < inputs)[None, :], other=0)
        if HAS_GAIN:
            gain_total += tl.load(gain_shares + o, mask=o < outputs, other=0)
    total = tl.sum(total, axis=0)  # [BLOCK_I]
    tl.store(scales_grad + i, rounded(total, scales_grad.dtype.element_ty), mask=i < inputs)
    if tl.program_id(0) == 0:
        tl.store(gain_grad, rounded(tl.sum(gain_total, axis=0), gain_grad.dtype.element_ty))
