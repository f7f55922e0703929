"""What the Triton kernels of self-modulation share: blocks of a weight's row, and sums over them.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses

One program makes one output row. A row is [I, K] in memory (contiguous) or [K, I] (channels_last). A program takes it
in blocks of whole input channels and keeps the first one, so that a row of one block is read once.
"""

import triton
import triton.language as tl


@triton.jit
def row_block(
    first, inputs, size,
    BLOCK: tl.constexpr, BLOCK_I: tl.constexpr, TAPS: tl.constexpr, BLOCK_K: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Offsets in the row, input channels and mask of BLOCK_I channels from `first` on: [BLOCK_K, BLOCK_I] or [BLOCK].

    In a contiguous row the channels' K elements follow one another, so that accesses are 16 bytes wide for any K.
    """
    if CHANNELS_LAST:
        k, i = tl.arange(0, BLOCK_K)[:, None], first + tl.arange(0, BLOCK_I)[None, :]
        return k * inputs + i, i, (k < TAPS) & (i < inputs)
    else:
        element = tl.arange(0, BLOCK)
        offsets = first * TAPS + element
        return offsets, first + element // TAPS, (element < BLOCK_I * TAPS) & (offsets < size)


@triton.jit
def load(pointers, mask, ARITHMETIC: tl.constexpr):
    return tl.load(pointers, mask=mask, other=0).to(ARITHMETIC)


@triton.jit
def sum_all(x):
    return tl.sum(tl.ravel(x), axis=0)
