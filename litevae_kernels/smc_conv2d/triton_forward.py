"""The Triton kernel of the self-modulated weight, Eq. 3.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses
"""

import triton
import triton.language as tl

from litevae_kernels.smc_conv2d.triton_tiles import load, row_block, sum_all
from litevae_kernels.triton_rounding import rounded


@triton.jit
def smc_weight_fwd_kernel(
    weight, scales, gain, result, inputs, size, eps,
    BLOCK: tl.constexpr, BLOCK_I: tl.constexpr, ONE_BLOCK: tl.constexpr, TAPS: tl.constexpr, BLOCK_K: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, HAS_GAIN: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """w'[o] = gain * r * s w[o] with r = (sum over i,k of (s w[o])^2 + eps)^(-1/2)."""
    weight += tl.program_id(0).to(tl.int64) * size
    result += tl.program_id(0).to(tl.int64) * size
    offsets, i, mask = row_block(0, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
    u = load(scales + i, mask, ARITHMETIC) * load(weight + offsets, mask, ARITHMETIC)
    squares = sum_all(u * u)
    if not ONE_BLOCK:
        for first in range(BLOCK_I, inputs, BLOCK_I):
            others, i, inside = row_block(first, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
            more = load(scales + i, inside, ARITHMETIC) * load(weight + others, inside, ARITHMETIC)
            squares += sum_all(more * more)
    factor = 1.0 / tl.sqrt(squares + eps)
    if HAS_GAIN:
        factor *= tl.load(gain).to(ARITHMETIC)
    tl.store(result + offsets, rounded(factor * u, result.dtype.element_ty), mask=mask)
    if not ONE_BLOCK:
        for first in range(BLOCK_I, inputs, BLOCK_I):
            others, i, inside = row_block(first, inputs, size, BLOCK, BLOCK_I, TAPS, BLOCK_K, CHANNELS_LAST)
            more = load(scales + i, inside, ARITHMETIC) * load(weight + others, inside, ARITHMETIC)
            tl.store(result + others, rounded(factor * more, result.dtype.element_ty), mask=inside)
