"""The Triton kernels of GroupNorm+SiLU: one for groups that fit a program, two for larger ones.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

With the mean and the variance of a group's n = group_size P elements, rstd = 1 / sqrt(variance + eps):

    z = (x - mean) rstd weight + bias,   y = z sigmoid(z)

Larger groups take two launches. The first computes the mean and the sum of squares about it of every channel and slice
of pixels; in the second, every program joins those of its own channels' groups, and then computes y. triton_tiles.py
says what sizes, parts and slices are.
"""

import triton
import triton.language as tl

from litevae_kernels.group_norm_silu.triton_tiles import (
    PARTS,
    block_of_program,
    groups_of_program,
    load_groups,
    members_of_groups,
    membership,
    parameters,
    parts_of_members,
    sigmoid,
    sum_over_groups,
    tensor_of,
    tile_at,
    wide,
)
from litevae_kernels.triton_rounding import rounded


@triton.jit
def group_norm_silu_fwd_kernel(
    x,  # [B, C1, P]
    skip,  # [B, C2, P] or None
    weight,  # [C] or None for 1
    bias,  # [C] or None for 0
    output,  # y [B, C, P]
    mean,  # [B, G] or None where they are not wanted
    rstd,  # [B, G] or None
    sizes,
    EPS: tl.constexpr,
    CHANNELS: tl.constexpr,  # of a program: whole groups
    ONE_GROUP: tl.constexpr,  # whether they are a single one
    BLOCK_C: tl.constexpr,  # CHANNELS, padded to a power of two
    BLOCK_P: tl.constexpr,  # P, padded
    CHANNELS_LAST: tl.constexpr,
):
    """y = z sigmoid(z) of all pixels of CHANNELS channels of one sample: one read, one write."""
    channels = sizes.x_channels + sizes.skip_channels
    sample, first = groups_of_program(tl.program_id(0), sizes, CHANNELS)
    channel = first + tl.arange(0, BLOCK_C)  # [BLOCK_C]
    group = channel // sizes.group_size
    inside = (channel < first + CHANNELS) & (channel < channels)
    mask = inside[:, None] & (tl.arange(0, BLOCK_P) < sizes.pixels)[None, :]  # [BLOCK_C, BLOCK_P]
    values = load_groups(x, skip, sizes, sample, first, mask, BLOCK_C, BLOCK_P, CHANNELS_LAST)

    n = tl.full((), 1, values.dtype) * sizes.group_size * sizes.pixels
    about = sum_over_groups(tl.sum(values, axis=1), group, ONE_GROUP) / n  # [BLOCK_C], each channel's group's
    centred = tl.where(mask, values - about[:, None], 0.0)
    residue = sum_over_groups(tl.sum(centred, axis=1), group, ONE_GROUP) / n  # what rounding left of the mean
    squares = sum_over_groups(tl.sum(centred * centred, axis=1), group, ONE_GROUP) / n
    m, r = about + residue, tl.rsqrt(tl.maximum(squares - residue * residue, 0.0) + EPS)
    if mean is not None:
        place = sample * (channels // sizes.group_size) + group
        leads = inside & (channel % sizes.group_size == 0)
        tl.store(mean + place, m, mask=leads)
        tl.store(rstd + place, r, mask=leads)

    w, b = parameters(weight, bias, channel, inside, values.dtype)
    z = (values - m[:, None]) * (r * w)[:, None] + b[:, None]
    base, offsets = tile_at(sample, first, 0, channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
    tl.store(output + base + offsets, rounded(z * sigmoid(z), output.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["parts", "part_tiles"])
def group_norm_silu_fwd_partials_kernel(
    x,  # [B, C1, P]
    skip,  # [B, C2, P] or None
    partials,  # [B, 2, parts, C]: means, and sums of (x - mean)^2
    sizes,
    parts,  # of the pixels of a sample, each a program's
    part_tiles,
    BLOCK_C: tl.constexpr,  # channels of a tile
    BLOCK_P: tl.constexpr,  # pixels of a tile
    CHANNELS_LAST: tl.constexpr,
):
    """Mean and sum of (x - mean)^2 of one part of the pixels, for every channel.

    Every element of the tile keeps its own running mean and sum of squares (Welford), joined at the end (Chan).
    """
    sample, channel, part = block_of_program(tl.program_id(0), skip, sizes, parts, BLOCK_C)
    tensor, tensor_channels, first = tensor_of(channel, x, skip, sizes)
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    inside = c < tensor_channels - first
    first_pixel = part.to(tl.int64) * part_tiles * BLOCK_P
    mean = tl.zeros((BLOCK_C, BLOCK_P), dtype=partials.dtype.element_ty)
    squares = tl.zeros((BLOCK_C, BLOCK_P), dtype=partials.dtype.element_ty)
    count = tl.full((), 0, partials.dtype.element_ty)
    for i in tl.range(0, part_tiles, num_stages=3):
        pixel = first_pixel + i * BLOCK_P
        base, offsets = tile_at(sample, first, pixel, tensor_channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        mask = inside[:, None] & (p < sizes.pixels - pixel)[None, :]
        values = wide(tl.load(tensor + base + offsets, mask=mask, other=0))  # [BLOCK_C, BLOCK_P]
        count += 1.0
        delta = tl.where(mask, values - mean, 0.0)
        mean += delta * (1.0 / count)
        squares += delta * (values - mean)

    left = sizes.pixels - first_pixel
    counts = tl.minimum(tl.maximum((left - p + (BLOCK_P - 1)) // BLOCK_P, 0), part_tiles).to(mean.dtype)[None, :]
    n = tl.minimum(left, part_tiles * BLOCK_P).to(mean.dtype)
    about = tl.sum(counts * mean, axis=1) / n  # [BLOCK_C]
    difference = mean - about[:, None]
    residue = tl.sum(counts * difference, axis=1) / n
    total = tl.sum(squares + counts * difference * difference, axis=1) - n * residue * residue
    channels = sizes.x_channels + sizes.skip_channels
    place = partials + (sample * 2 * parts + part) * channels + channel + c
    tl.store(place, about + residue, mask=inside)
    tl.store(place + parts * channels, total, mask=inside)


@triton.jit(do_not_specialize=["parts", "part_tiles", "slices", "slice_tiles"])
def group_norm_silu_fwd_apply_kernel(
    x,  # [B, C1, P]
    skip,  # [B, C2, P] or None
    weight,  # [C] or None for 1
    bias,  # [C] or None for 0
    output,  # y [B, C, P]
    mean,  # [B, G] or None where they are not wanted
    rstd,  # [B, G] or None
    partials,  # [B, 2, parts, C]
    sizes,
    parts,  # that the partial results are of
    part_tiles,
    slices,  # of the pixels of a sample, each a program's
    slice_tiles,
    EPS: tl.constexpr,
    MEMBERS: tl.constexpr,  # channels whose partial results are joined at once
    BLOCK_C: tl.constexpr,  # channels of a tile
    BLOCK_P: tl.constexpr,  # pixels of a tile
    CHANNELS_LAST: tl.constexpr,
):
    """y = z sigmoid(z) of one slice of the pixels. Reverse order: the data read last is still in the L2 cache."""
    sample, channel, index = block_of_program(tl.num_programs(0) - 1 - tl.program_id(0), skip, sizes, slices, BLOCK_C)
    tensor, tensor_channels, first = tensor_of(channel, x, skip, sizes)
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    inside, channels = c < tensor_channels - first, sizes.x_channels + sizes.skip_channels
    m, variance = _statistics(
        partials, parts, part_tiles * BLOCK_P, sizes, sample, channel, MEMBERS, BLOCK_C
    )  # [BLOCK_C]
    r = tl.rsqrt(variance + EPS)
    if mean is not None:
        place = sample * (channels // sizes.group_size) + (channel + c) // sizes.group_size
        leads = inside & ((channel + c) % sizes.group_size == 0) & (index == 0)
        tl.store(mean + place, m, mask=leads)
        tl.store(rstd + place, r, mask=leads)

    w, b = parameters(weight, bias, channel + c, inside, m.dtype)
    m, factor, b = m[:, None], (r * w)[:, None], b[:, None]
    first_pixel = index.to(tl.int64) * slice_tiles * BLOCK_P
    for i in tl.range(0, slice_tiles, num_stages=3):
        pixel = first_pixel + i * BLOCK_P
        base, offsets = tile_at(sample, first, pixel, tensor_channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        mask = inside[:, None] & (p < sizes.pixels - pixel)[None, :]
        z = (wide(tl.load(tensor + base + offsets, mask=mask, other=0)) - m) * factor + b  # [BLOCK_C, BLOCK_P]
        base, offsets = tile_at(sample, channel, pixel, channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        tl.store(output + base + offsets, rounded(z * sigmoid(z), output.dtype.element_ty), mask=mask)


@triton.jit
def _statistics(partials, parts, part_pixels, sizes, sample, channel, MEMBERS: tl.constexpr, BLOCK_C: tl.constexpr):
    """mean and variance [BLOCK_C] of the groups of a block of channels, from [B, 2, parts, C], all by Chan's formula.

    Means are counted from a value near to all of them, `about`, so that rounding takes little from a large mean.
    """
    first, end = members_of_groups(channel, sizes, BLOCK_C)
    about = tl.load(partials + sample * 2 * parts * (sizes.x_channels + sizes.skip_channels) + first)
    group_first = (channel + tl.arange(0, BLOCK_C)) // sizes.group_size * sizes.group_size  # [BLOCK_C]
    mean = tl.zeros((BLOCK_C,), dtype=about.dtype)
    squares, seen = tl.zeros_like(mean), tl.zeros_like(mean)  # seen: members of each group
    for start in range(first, end, MEMBERS):
        member = start + tl.arange(0, MEMBERS)
        member_mean, member_squares = _join_parts(
            partials, parts, part_pixels, sizes, sample, member, end, about
        )  # [MEMBERS]
        belongs, count = membership(member, start, group_first, sizes, MEMBERS)  # [MEMBERS, BLOCK_C], [BLOCK_C]
        count = count.to(about.dtype)
        block_mean = tl.sum(tl.where(belongs, member_mean[:, None], 0.0), axis=0) / tl.maximum(count, 1.0)
        difference = member_mean[:, None] - block_mean[None, :]  # [MEMBERS, BLOCK_C]
        block_squares = tl.where(belongs, member_squares[:, None] + sizes.pixels * difference * difference, 0.0)
        share, step = count / tl.maximum(seen + count, 1.0), block_mean - mean
        squares += tl.sum(block_squares, axis=0) + sizes.pixels * step * step * seen * share
        mean += step * share
        seen += count
    return about + mean, tl.maximum(squares, 0.0) / (tl.full((), 1, about.dtype) * sizes.group_size * sizes.pixels)


@triton.jit
def _join_parts(partials, parts, part_pixels, sizes, sample, member, end, about):
    """Mean, less `about`, and sum of squares about it, [MEMBERS], of channels: those of all their parts together."""
    mean = tl.zeros(member.shape, dtype=about.dtype)
    squares, seen = tl.zeros_like(mean), tl.zeros_like(about)  # seen: pixels
    left = tl.zeros_like(sample) + sizes.pixels
    for first_part in range(0, parts, PARTS):
        part_mean, part_squares = parts_of_members(partials, parts, first_part, member, end, sizes, sample)
        part_mean -= about  # [PARTS, MEMBERS]
        pixels = tl.minimum(left, part_pixels * PARTS).to(tl.int32)  # of all these parts; n: of each
        n = tl.minimum(tl.maximum(pixels - tl.arange(0, PARTS) * part_pixels, 0), part_pixels)[:, None]
        n, count = n.to(about.dtype), pixels.to(about.dtype)
        block_mean = tl.sum(n * part_mean, axis=0) * (1.0 / count)  # [MEMBERS]
        difference = part_mean - block_mean[None, :]
        share, step = count / (seen + count), block_mean - mean
        squares += tl.sum(part_squares + n * difference * difference, axis=0) + step * step * (seen * share)
        mean += step * share
        seen += count
        left -= part_pixels * PARTS
    return mean, squares
