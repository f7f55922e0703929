"""The Triton kernel of the self-modulated weight, Eq. 3.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses
"""

import triton
import triton.language as tl

from litevae_kernels.smc_conv2d.triton_tiles import load, row_block, sum_all
from litevae_kernels.triton_rounding import rounded


@triton.jit
def smc_weight_fwd_kernel(
    weight,  # w, [O, I, kh, kw], dense in the row's memory format
    scales,  # s, [I]
    gain,  # one element, read with HAS_GAIN
    result,  # w', as weight, of any floating dtype
    inputs,  # I
    eps,
    ROW: tl.constexpr,
    HAS_GAIN: tl.constexpr,
):
    """w'[o] = gain * r * u with u = s w[o] and r = (sum of u^2 + eps)^(-1/2), sums over input channels and taps.

    Gradient: smc_weight_bwd_kernel.
    """
    row = tl.program_id(0).to(tl.int64) * inputs * ROW.taps
    weight, result = weight + row, result + row
    offsets, i, mask = row_block(0, inputs, ROW)
    u = load(scales + i, mask, ROW) * load(weight + offsets, mask, ROW)  # the shape of a block
    squares = sum_all(u * u)
    if not ROW.one_block:
        for first in range(ROW.block_inputs, inputs, ROW.block_inputs):
            others, i, inside = row_block(first, inputs, ROW)
            more = load(scales + i, inside, ROW) * load(weight + others, inside, ROW)
            squares += sum_all(more * more)
    factor = 1.0 / tl.sqrt(squares + eps)
    if HAS_GAIN:
        factor *= tl.load(gain).to(ROW.arithmetic)
    tl.store(result + offsets, rounded(factor * u, result.dtype.element_ty), mask=mask)
    if not ROW.one_block:
        for first in range(ROW.block_inputs, inputs, ROW.block_inputs):
            others, i, inside = row_block(first, inputs, ROW)
            more = load(scales + i, inside, ROW) * load(weight + others, inside, ROW)
            tl.store(result + others, rounded(factor * more, result.dtype.element_ty), mask=inside)
