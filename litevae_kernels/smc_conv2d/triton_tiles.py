"""What the Triton kernels of self-modulation share: blocks of a weight's row, and sums over them.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses

One program makes one output row, w[o] of I input channels and K taps. In memory a row is [I, K] (contiguous) or [K, I]
(channels_last). A program takes it in blocks of whole input channels and keeps the first one, so that a row of one
block is read once.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Row(NamedTuple):
    """What a kernel is compiled for, the same in every program of a launch. A block's sizes are powers of two."""

    taps: int  # K
    channels_last: bool  # [K, I] in memory, else [I, K]
    one_block: bool  # a block holds the whole row
    block_inputs: int  # input channels of a block
    block_taps: int  # K rounded up: a block is [block_taps, block_inputs] in channels_last
    block: int  # elements of a block of a contiguous row: [block]
    arithmetic: Any  # tl.float32 or tl.float64


@triton.jit
def row_block(first, inputs, ROW: tl.constexpr):
    """Offsets in the row, input channels and mask of the block that starts at channel `first` of `inputs`.

    Shape: [block_taps, block_inputs] in channels_last, else [block]. In a contiguous row the K elements of the channels
    follow one another, so that accesses are 16 bytes wide for any K.
    """
    if ROW.channels_last:
        k, i = tl.arange(0, ROW.block_taps)[:, None], first + tl.arange(0, ROW.block_inputs)[None, :]
        return k * inputs + i, i, (k < ROW.taps) & (i < inputs)
    else:
        element = tl.arange(0, ROW.block)
        offsets = first * ROW.taps + element
        return (
            offsets,
            first + element // ROW.taps,
            (element < ROW.block_inputs * ROW.taps) & (offsets < inputs * ROW.taps),
        )


@triton.jit
def load(pointers, mask, ROW: tl.constexpr):
    """In the arithmetic's dtype; zeros where masked, which add nothing to a sum."""
    return tl.load(pointers, mask=mask, other=0).to(ROW.arithmetic)


@triton.jit
def sum_all(x):
    return tl.sum(tl.ravel(x), axis=0)
