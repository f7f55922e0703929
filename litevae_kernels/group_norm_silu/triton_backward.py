"""The Triton kernels of the gradients of GroupNorm+SiLU, and one that sums up those of weight and bias.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

With xhat = (x - mean) rstd, z = weight xhat + bias, s = sigmoid(z) and dz = grad s (1 + z (1 - s)), every channel of a
sample has two sums over its P pixels, and every group of n = group_size P elements two of those over its channels:

    S1 = sum of dz                     S2 = sum of (dz xhat)
    c1 = sum of (weight S1) / n        c2 = sum of (weight S2) / n
    dx = rstd (weight dz - c1 - xhat c2)
    dweight = sum over B of S2         dbias = sum over B of S1

Groups that fit a program take one launch for dx. Larger ones take two: S1 and S2 of every channel and slice of pixels;
then every program joins those of its own channels' groups to c1 and c2, and computes dx.
"""

import triton
import triton.language as tl

from litevae_kernels.group_norm_silu.triton_tiles import (
    PARTS,
    block_of_program,
    groups_of_program,
    load_groups,
    load_statistics,
    members_of_groups,
    membership,
    parameters,
    parts_of_members,
    silu_gradient,
    store_groups,
    sum_over_groups,
    tensor_of,
    tile_at,
    wide,
)
from litevae_kernels.triton_rounding import rounded


@triton.jit
def group_norm_silu_bwd_kernel(
    grad,  # of y: [B, C, P]
    x,  # [B, C1, P]
    skip,  # [B, C2, P] or None
    weight,  # [C] or None for 1
    bias,  # [C] or None for 0
    mean,  # [B, G]
    rstd,  # [B, G]
    x_grad,  # [B, C1, P]
    skip_grad,  # [B, C2, P] or None
    partials,  # [B, 2, 1, C]: S1 and S2
    sizes,
    CHANNELS: tl.constexpr,  # of a program: whole groups
    ONE_GROUP: tl.constexpr,  # whether they are a single one
    BLOCK_C: tl.constexpr,  # CHANNELS, padded to a power of two
    BLOCK_P: tl.constexpr,  # P, padded
    CHANNELS_LAST: tl.constexpr,
):
    """dx of all pixels of CHANNELS channels of one sample, and their S1 and S2: two reads, one write."""
    channels = sizes.x_channels + sizes.skip_channels
    sample, first = groups_of_program(tl.program_id(0), sizes, CHANNELS)
    channel = first + tl.arange(0, BLOCK_C)  # [BLOCK_C]
    group = channel // sizes.group_size
    inside = (channel < first + CHANNELS) & (channel < channels)
    mask = inside[:, None] & (tl.arange(0, BLOCK_P) < sizes.pixels)[None, :]  # [BLOCK_C, BLOCK_P]
    base, offsets = tile_at(sample, first, 0, channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
    g = wide(tl.load(grad + base + offsets, mask=mask, other=0))
    values = load_groups(x, skip, sizes, sample, first, mask, BLOCK_C, BLOCK_P, CHANNELS_LAST)

    m, r = load_statistics(mean, rstd, sizes, sample, channel, inside)  # [BLOCK_C]
    w, b = parameters(weight, bias, channel, inside, m.dtype)
    xhat = (values - m[:, None]) * r[:, None]  # [BLOCK_C, BLOCK_P]
    dz = silu_gradient(g, xhat * w[:, None] + b[:, None])
    s1, s2 = tl.sum(dz, axis=1), tl.sum(dz * xhat, axis=1)  # [BLOCK_C]
    place = partials + sample * 2 * channels + channel
    tl.store(place, s1, mask=inside)
    tl.store(place + channels, s2, mask=inside)
    n = tl.full((), 1, m.dtype) * sizes.group_size * sizes.pixels
    c1 = sum_over_groups(w * s1, group, ONE_GROUP) / n
    c2 = sum_over_groups(w * s2, group, ONE_GROUP) / n
    dx = r[:, None] * (w[:, None] * dz - c1[:, None] - xhat * c2[:, None])
    store_groups(dx, x_grad, skip_grad, sizes, sample, first, mask, BLOCK_C, BLOCK_P, CHANNELS_LAST)


@triton.jit(do_not_specialize=["parts", "part_tiles"])
def group_norm_silu_bwd_partials_kernel(
    grad,  # of y: [B, C, P]
    x,  # [B, C1, P]
    skip,  # [B, C2, P] or None
    weight,  # [C] or None for 1
    bias,  # [C] or None for 0
    mean,  # [B, G]
    rstd,  # [B, G]
    partials,  # [B, 2, parts, C]: S1 and S2
    sizes,
    parts,  # of the pixels of a sample, each a program's
    part_tiles,
    BLOCK_C: tl.constexpr,  # channels of a tile
    BLOCK_P: tl.constexpr,  # pixels of a tile
    CHANNELS_LAST: tl.constexpr,
):
    """S1 and S2 of one part of the pixels, for every channel."""
    sample, channel, part = block_of_program(tl.program_id(0), skip, sizes, parts, BLOCK_C)
    tensor, tensor_channels, first = tensor_of(channel, x, skip, sizes)
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    inside, channels = c < tensor_channels - first, sizes.x_channels + sizes.skip_channels
    m, r = load_statistics(mean, rstd, sizes, sample, channel + c, inside)  # [BLOCK_C]
    w, b = parameters(weight, bias, channel + c, inside, m.dtype)
    first_pixel = part.to(tl.int64) * part_tiles * BLOCK_P
    s1 = tl.zeros((BLOCK_C, BLOCK_P), dtype=m.dtype)
    s2 = tl.zeros((BLOCK_C, BLOCK_P), dtype=m.dtype)
    for i in tl.range(0, part_tiles, num_stages=3):
        pixel = first_pixel + i * BLOCK_P
        mask = inside[:, None] & (p < sizes.pixels - pixel)[None, :]
        base, offsets = tile_at(sample, channel, pixel, channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        g = wide(tl.load(grad + base + offsets, mask=mask, other=0))  # [BLOCK_C, BLOCK_P]
        base, offsets = tile_at(sample, first, pixel, tensor_channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        xhat = (wide(tl.load(tensor + base + offsets, mask=mask, other=0)) - m[:, None]) * r[:, None]
        dz = silu_gradient(g, xhat * w[:, None] + b[:, None])
        s1 += dz
        s2 += dz * xhat
    place = partials + (sample * 2 * parts + part) * channels + channel + c
    tl.store(place, tl.sum(s1, axis=1), mask=inside)
    tl.store(place + parts * channels, tl.sum(s2, axis=1), mask=inside)


@triton.jit(do_not_specialize=["parts", "part_tiles", "slices", "slice_tiles"])
def group_norm_silu_bwd_apply_kernel(
    grad,  # of y: [B, C, P]
    x,  # [B, C1, P]
    skip,  # [B, C2, P] or None
    weight,  # [C] or None for 1
    bias,  # [C] or None for 0
    mean,  # [B, G]
    rstd,  # [B, G]
    x_grad,  # [B, C1, P]
    skip_grad,  # [B, C2, P] or None
    partials,  # [B, 2, parts, C]: S1 and S2
    sizes,
    parts,  # that the partial results are of
    part_tiles,
    slices,  # of the pixels of a sample, each a program's
    slice_tiles,
    MEMBERS: tl.constexpr,  # channels whose partial results are joined at once
    BLOCK_C: tl.constexpr,  # channels of a tile
    BLOCK_P: tl.constexpr,  # pixels of a tile
    CHANNELS_LAST: tl.constexpr,
):
    """dx of one slice of the pixels. Reverse order: the data read last is still in the L2 cache."""
    sample, channel, index = block_of_program(tl.num_programs(0) - 1 - tl.program_id(0), skip, sizes, slices, BLOCK_C)
    tensor, tensor_channels, first = tensor_of(channel, x, skip, sizes)
    result, _, _ = tensor_of(channel, x_grad, skip_grad, sizes)
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    inside, channels = c < tensor_channels - first, sizes.x_channels + sizes.skip_channels
    m, r = load_statistics(mean, rstd, sizes, sample, channel + c, inside)  # [BLOCK_C]
    w, b = parameters(weight, bias, channel + c, inside, m.dtype)
    c1, c2 = _coefficients(partials, parts, weight, sizes, sample, channel, MEMBERS, BLOCK_C)  # [BLOCK_C]
    first_pixel = index.to(tl.int64) * slice_tiles * BLOCK_P
    for i in tl.range(0, slice_tiles, num_stages=3):
        pixel = first_pixel + i * BLOCK_P
        mask = inside[:, None] & (p < sizes.pixels - pixel)[None, :]
        base, offsets = tile_at(sample, channel, pixel, channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        g = wide(tl.load(grad + base + offsets, mask=mask, other=0))  # [BLOCK_C, BLOCK_P]
        base, offsets = tile_at(sample, first, pixel, tensor_channels, sizes.pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        xhat = (wide(tl.load(tensor + base + offsets, mask=mask, other=0)) - m[:, None]) * r[:, None]
        dz = silu_gradient(g, xhat * w[:, None] + b[:, None])
        dx = r[:, None] * (w[:, None] * dz - c1[:, None] - xhat * c2[:, None])
        tl.store(result + base + offsets, rounded(dx, result.dtype.element_ty), mask=mask)


@triton.jit
def _coefficients(partials, parts, weight, sizes, sample, channel, MEMBERS: tl.constexpr, BLOCK_C: tl.constexpr):
    """c1 and c2 [BLOCK_C] of the groups of a block of channels, from [B, 2, parts, C]."""
    first, end = members_of_groups(channel, sizes, BLOCK_C)
    group_first = (channel + tl.arange(0, BLOCK_C)) // sizes.group_size * sizes.group_size  # [BLOCK_C]
    c1 = tl.zeros((BLOCK_C,), dtype=partials.dtype.element_ty)
    c2 = tl.zeros_like(c1)
    for start in range(first, end, MEMBERS):
        member = start + tl.arange(0, MEMBERS)
        s1 = tl.zeros((PARTS, MEMBERS), dtype=c1.dtype)
        s2 = tl.zeros_like(s1)
        for first_part in range(0, parts, PARTS):
            part_s1, part_s2 = parts_of_members(partials, parts, first_part, member, end, sizes, sample)
            s1 += part_s1
            s2 += part_s2
        w, _ = parameters(weight, None, member, member < end, c1.dtype)  # [MEMBERS]
        member_s1, member_s2 = w * tl.sum(s1, axis=0), w * tl.sum(s2, axis=0)
        belongs, _ = membership(member, start, group_first, sizes, MEMBERS)  # [MEMBERS, BLOCK_C]
        c1 += tl.sum(tl.where(belongs, member_s1[:, None], 0.0), axis=0)
        c2 += tl.sum(tl.where(belongs, member_s2[:, None], 0.0), axis=0)
    n = tl.full((), 1, c1.dtype) * sizes.group_size * sizes.pixels
    return c1 / n, c2 / n


@triton.jit(do_not_specialize=["batch", "parts"])
def group_norm_silu_bwd_parameters_kernel(
    partials,  # [B, 2, parts, C]: S1 and S2
    weight_grad,  # [C] or None
    bias_grad,  # [C] or None
    channels,  # C
    batch,  # B
    parts,  # their number
    BLOCK_C: tl.constexpr,  # channels of a program
    BLOCK_ROWS: tl.constexpr,  # parts of any sample that it adds at once
):
    """dweight and dbias of BLOCK_C channels: the sums over samples and parts of S2 and of S1."""
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    s1 = tl.zeros((BLOCK_ROWS, BLOCK_C), dtype=partials.dtype.element_ty)
    s2 = tl.zeros_like(s1)
    for first in range(0, batch * parts, BLOCK_ROWS):
        row = first + tl.arange(0, BLOCK_ROWS)
        mask = (row < batch * parts)[:, None] & (channel < channels)[None, :]
        place = (row // parts).to(tl.int64) * 2 * parts + row % parts  # [BLOCK_ROWS], of S1 among rows of C
        pointers = partials + place[:, None] * channels + channel[None, :]
        s1 += tl.load(pointers, mask=mask, other=0)
        s2 += tl.load(pointers + parts * channels, mask=mask, other=0)
    if weight_grad is not None:
        total = rounded(tl.sum(s2, axis=0), weight_grad.dtype.element_ty)
        tl.store(weight_grad + channel, total, mask=channel < channels)
    if bias_grad is not None:
        total = rounded(tl.sum(s1, axis=0), bias_grad.dtype.element_ty)
        tl.store(bias_grad + channel, total, mask=channel < channels)
