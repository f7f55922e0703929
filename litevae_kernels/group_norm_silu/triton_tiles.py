"""What the kernels of GroupNorm+SiLU share: which tile a program reads, the statistics of groups, and the formulas.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

The kernels' names for sizes, and the numbers that they get (triton_plans.py makes them):

    B samples of C = C1 + C2 channels, those of x and then those of skip, and P = H W pixels; G groups of C / G channels
    sizes   x_channels C1, skip_channels C2 (0 without a skip), pixels P, group_size C / G
    parts, part_tiles      the pixels of a sample are cut into so many parts, of so many tiles each, the last perhaps
                           smaller: a partial result is of one part
    slices, slice_tiles    likewise, for the programs of a second launch

Tensors are dense [B, channels, P], or [B, P, channels] if CHANNELS_LAST; None for one that is absent. A program goes
through tiles [BLOCK_C channels, BLOCK_P pixels]; Triton finds out which axis of a tile is contiguous. A tile's first
element has an offset of 64 bits, the others have offsets of 32 bits from there.

All arithmetic is float32, or float64 where x is: `wide` makes it so.
"""

import os

import triton
import triton.language as tl
from triton.language.extra import libdevice

from litevae_kernels.triton_rounding import rounded

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")  # which has no libdevice
PARTS = tl.constexpr(16)  # that are joined at once


@triton.jit
def wide(values):
    """The values in the dtype of the arithmetic."""
    if values.dtype == tl.float64:
        return values
    else:
        return values.to(tl.float32)


@triton.jit
def tile_at(
    sample,  # which of the tensor's samples, of 64 bits
    first_channel,
    first_pixel,
    channels,  # of the tensor
    pixels,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """The offset of a tile's first element, and the offsets [BLOCK_C, BLOCK_P] of its elements from there."""
    c, p = tl.arange(0, BLOCK_C)[:, None], tl.arange(0, BLOCK_P)[None, :]
    if CHANNELS_LAST:
        return (sample * pixels + first_pixel) * channels + first_channel, p * channels + c
    else:
        return (sample * channels + first_channel) * pixels + first_pixel, c * pixels + p


@triton.jit
def block_of_program(program, skip, sizes, slices, BLOCK_C: tl.constexpr):
    """The sample, the first channel of a block in concat(x, skip), and the slice of pixels, that a program computes.

    Slices of a block follow one another, then blocks of a sample. No block has channels of both x and skip.
    """
    row, index = program // slices, program % slices
    x_blocks = tl.cdiv(sizes.x_channels, BLOCK_C)
    if skip is None:
        return (row // x_blocks).to(tl.int64), row % x_blocks * BLOCK_C, index
    else:
        blocks = x_blocks + tl.cdiv(sizes.skip_channels, BLOCK_C)
        block = row % blocks
        channel = tl.where(block < x_blocks, block * BLOCK_C, sizes.x_channels + (block - x_blocks) * BLOCK_C)
        return (row // blocks).to(tl.int64), channel, index


@triton.jit
def tensor_of(channel, x, skip, sizes):
    """Of a channel of concat(x, skip): the tensor that holds it, the channels of that tensor, its place among them."""
    if skip is None:
        return x, sizes.x_channels, channel
    else:
        in_x = channel < sizes.x_channels
        tensor, channels = tl.where(in_x, x, skip), tl.where(in_x, sizes.x_channels, sizes.skip_channels)
        return tensor, channels, channel - tl.where(in_x, 0, sizes.x_channels)


@triton.jit
def groups_of_program(program, sizes, CHANNELS: tl.constexpr):
    """The sample and the first channel of the CHANNELS channels, whole groups, that a program computes."""
    blocks = tl.cdiv(sizes.x_channels + sizes.skip_channels, CHANNELS)
    return (program // blocks).to(tl.int64), program % blocks * CHANNELS


@triton.jit
def load_groups(
    x, skip, sizes, sample, channel, mask, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, CHANNELS_LAST: tl.constexpr
):
    """All pixels of BLOCK_C channels of concat(x, skip), from `channel` on: [BLOCK_C, BLOCK_P], 0 outside the mask."""
    in_x = (channel + tl.arange(0, BLOCK_C) < sizes.x_channels)[:, None]
    base, offsets = tile_at(sample, channel, 0, sizes.x_channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
    values = wide(tl.load(x + base + offsets, mask=mask & in_x, other=0))
    if skip is not None:
        first = channel - sizes.x_channels
        base, offsets = tile_at(sample, first, 0, sizes.skip_channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        values += wide(tl.load(skip + base + offsets, mask=mask & (in_x == 0), other=0))
    return values


@triton.jit
def store_groups(
    values,
    x,
    skip,
    sizes,
    sample,
    channel,
    mask,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """Stores the tile [BLOCK_C, BLOCK_P] where `load_groups` reads it."""
    in_x = (channel + tl.arange(0, BLOCK_C) < sizes.x_channels)[:, None]
    base, offsets = tile_at(sample, channel, 0, sizes.x_channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
    tl.store(x + base + offsets, rounded(values, x.dtype.element_ty), mask=mask & in_x)
    if skip is not None:
        first = channel - sizes.x_channels
        base, offsets = tile_at(sample, first, 0, sizes.skip_channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        tl.store(skip + base + offsets, rounded(values, skip.dtype.element_ty), mask=mask & (in_x == 0))


@triton.jit
def parameters(weight, bias, channel, inside, DTYPE: tl.constexpr):
    """weight and bias [BLOCK_C] of the channels; 1 and 0 where absent."""
    w, b = tl.full(channel.shape, 1, DTYPE), tl.full(channel.shape, 0, DTYPE)
    if weight is not None:
        w = tl.load(weight + channel, mask=inside, other=0).to(DTYPE)
    if bias is not None:
        b = tl.load(bias + channel, mask=inside, other=0).to(DTYPE)
    return w, b


@triton.jit
def load_statistics(mean, rstd, sizes, sample, channel, inside):
    """mean and rstd [BLOCK_C] of the channels' groups, from [B, G]."""
    group = sample * ((sizes.x_channels + sizes.skip_channels) // sizes.group_size) + channel // sizes.group_size
    return tl.load(mean + group, mask=inside, other=0), tl.load(rstd + group, mask=inside, other=0)


@triton.jit
def sum_over_groups(channel_values, group, ONE_GROUP: tl.constexpr):
    """[BLOCK_C] -> [BLOCK_C]: for every channel, the sum over the channels of its group in this tile."""
    if ONE_GROUP:
        return tl.broadcast_to(tl.sum(channel_values), channel_values.shape)
    else:
        return tl.sum(tl.where(group[:, None] == group[None, :], channel_values[:, None], 0.0), axis=0)


@triton.jit
def members_of_groups(channel, sizes, BLOCK_C: tl.constexpr):
    """The first channel, and the one after the last, of the groups that the block of channels from `channel` on meets.

    MEMBERS of them are looked at at once; a group may be larger than that, and reach out of the block on both sides.
    """
    last = tl.minimum(channel + BLOCK_C, sizes.x_channels + sizes.skip_channels) - 1
    return channel // sizes.group_size * sizes.group_size, (last // sizes.group_size + 1) * sizes.group_size


@triton.jit
def membership(member, start, group_first, sizes, MEMBERS: tl.constexpr):
    """Which of the MEMBERS channels from `start` on belong to the groups that begin at group_first [BLOCK_C].

    As a mask [MEMBERS, BLOCK_C], and how many belong to each: [BLOCK_C].
    """
    group_end = group_first + sizes.group_size
    belongs = (member[:, None] >= group_first[None, :]) & (member[:, None] < group_end[None, :])
    return belongs, tl.maximum(tl.minimum(group_end, start + MEMBERS) - tl.maximum(group_first, start), 0)


@triton.jit
def parts_of_members(partials, parts, first_part, member, end, sizes, sample):
    """Both partial results [PARTS, MEMBERS] of some parts and channels, from [B, 2, parts, C]; 0 past either's end."""
    channels = sizes.x_channels + sizes.skip_channels
    part = first_part + tl.arange(0, PARTS)
    mask = (part < parts)[:, None] & (member < end)[None, :]
    first = partials + sample * 2 * parts * channels
    offsets = part[:, None] * channels + member[None, :]
    return tl.load(first + offsets, mask=mask, other=0), tl.load(first + parts * channels + offsets, mask=mask, other=0)


@triton.jit
def sigmoid(z):
    """1 / (1 + exp(-z)). In float32 by the GPU's own exponential and division.

    Their errors are 2 + 1.17 |z| and 2 units in the last place; below z = -87 the result is 0 instead of 1e-38.
    """
    if INTERPRETED or z.dtype == tl.float64:
        return 1.0 / (1.0 + tl.exp(-z))
    else:
        return libdevice.fast_dividef(1.0, 1.0 + libdevice.fast_expf(-z))


@triton.jit
def silu_gradient(grad, z):
    """dz = grad s (1 + z (1 - s)) with s = sigmoid(z)."""
    s = sigmoid(z)
    return grad * s * (1.0 + z * (1.0 - s))
