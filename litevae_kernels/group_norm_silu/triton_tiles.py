"""Tiles [BLOCK_C channels, BLOCK_P pixels] of x, skip and the result, and the formulas that the kernels share.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

Every tensor is dense [B, channels, pixels], or [B, pixels, channels] if CHANNELS_LAST. Triton finds the contiguous axis
of a tile by itself. A tile's first element has a 64-bit offset, the others 32-bit offsets from it.
"""

import triton
import triton.language as tl


@triton.jit
def tile_at(
    sample, first_channel, first_pixel, channels, pixels,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Offset of a tile's first element, and its elements' offsets from there."""
    c, p = tl.arange(0, BLOCK_C)[:, None], tl.arange(0, BLOCK_P)[None, :]
    if CHANNELS_LAST:
        return (sample * pixels + first_pixel) * channels + first_channel, p * channels + c
    else:
        return (sample * channels + first_channel) * pixels + first_pixel, c * pixels + p


@triton.jit
def block_of_program(
    program, x_channels, skip_channels, splits, BLOCK_C: tl.constexpr, HAS_SKIP: tl.constexpr
):  # fmt: skip
    """The channels, of x or of skip, and the part of the pixels that a program computes. Blocks of x come first.

    Returns the sample; whether the channels are skip's; the first channel and the number of channels in that tensor;
    the first channel in concat(x, skip); and the part of the pixels.
    """
    x_blocks = tl.cdiv(x_channels, BLOCK_C)
    row, split = program // splits, program % splits
    if HAS_SKIP:
        blocks = x_blocks + tl.cdiv(skip_channels, BLOCK_C)
        sample, block = (row // blocks).to(tl.int64), row % blocks
        is_skip = block >= x_blocks
        first = tl.where(is_skip, block - x_blocks, block) * BLOCK_C
        channels = tl.where(is_skip, skip_channels, x_channels)
        return sample, is_skip, first, channels, tl.where(is_skip, x_channels, 0) + first, split
    else:
        sample, first = (row // x_blocks).to(tl.int64), row % x_blocks * BLOCK_C
        return sample, False, first, x_channels, first, split


@triton.jit
def select_tensor(is_skip, x, skip, HAS_SKIP: tl.constexpr):
    """The pointer of the tensor that a block belongs to."""
    if HAS_SKIP:
        return tl.where(is_skip, skip, x)
    else:
        return x


@triton.jit
def normalisation(
    mean, rstd, weight, bias, sample, channel, inside, num_groups, group_size,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """mean, rstd, weight and bias of each channel, [BLOCK_C, 1]; weight 1 and bias 0 where absent."""
    group = sample * num_groups + channel // group_size
    m = tl.load(mean + group, mask=inside, other=0)
    r = tl.load(rstd + group, mask=inside, other=0)
    w, b = parameters(weight, bias, channel, inside, HAS_WEIGHT, HAS_BIAS, ARITHMETIC)
    return m[:, None], r[:, None], w, b


@triton.jit
def parameters(
    weight, bias, channel, inside, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, ARITHMETIC: tl.constexpr
):  # fmt: skip
    w, b = tl.full(channel.shape, 1, ARITHMETIC), tl.full(channel.shape, 0, ARITHMETIC)
    if HAS_WEIGHT:
        w = tl.load(weight + channel, mask=inside, other=0).to(ARITHMETIC)
    if HAS_BIAS:
        b = tl.load(bias + channel, mask=inside, other=0).to(ARITHMETIC)
    return w[:, None], b[:, None]


@triton.jit
def sigmoid(z):
    return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def silu_gradient(grad, z):
    """dz = grad s (1 + z (1 - s)) with s = sigmoid(z)."""
    s = sigmoid(z)
    return grad * s * (1.0 + z * (1.0 - s))


@triton.jit
def sum_over_groups(channel_values, group, ONE_GROUP: tl.constexpr):
    """[BLOCK_C] -> [BLOCK_C]: for every channel, the sum over the channels of its group in this tile."""
    if ONE_GROUP:
        return tl.broadcast_to(tl.sum(channel_values), channel_values.shape)
    else:
        together = group[:, None] == group[None, :]
        return tl.sum(tl.where(together, channel_values[None, :], 0.0), axis=1)
