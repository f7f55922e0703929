"""The Triton kernels of GroupNorm+SiLU: one for groups that fit a program, three for larger ones.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses
"""

import triton
import triton.language as tl

from litevae_kernels.group_norm_silu.triton_tiles import (
    block_of_program,
    normalisation,
    parameters,
    select_tensor,
    sigmoid,
    sum_over_groups,
    tile_at,
)
from litevae_kernels.triton_rounding import rounded


@triton.jit
def group_norm_silu_fwd_kernel(
    x, skip, weight, bias, output, mean, rstd, x_channels, skip_channels, pixels, num_groups, group_size,
    EPS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, ONE_GROUP: tl.constexpr,
    HAS_SKIP: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """y = z sigmoid(z), z = (x - mean) rstd w + b, for the whole groups of CHANNELS channels: one read, one write."""
    channels = x_channels + skip_channels
    blocks = tl.cdiv(channels, CHANNELS)
    sample, first = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * CHANNELS
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    channel = first + c
    group = channel // group_size
    inside = (c < CHANNELS) & (channel < channels)
    mask = inside[:, None] & (p < pixels)[None, :]
    base, offsets = tile_at(sample, first, 0, x_channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
    value = tl.load(x + base + offsets, mask=mask & (channel < x_channels)[:, None], other=0).to(ARITHMETIC)
    if HAS_SKIP:
        base, offsets = tile_at(
            sample, first - x_channels, 0, skip_channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST
        )  # fmt: skip
        value += tl.load(skip + base + offsets, mask=mask & (channel >= x_channels)[:, None], other=0).to(ARITHMETIC)

    n = tl.full((), 1, ARITHMETIC) * group_size * pixels
    about = sum_over_groups(tl.sum(value, axis=1), group, ONE_GROUP) / n
    centred = tl.where(mask, value - about[:, None], 0.0)
    residue = sum_over_groups(tl.sum(centred, axis=1), group, ONE_GROUP) / n  # what rounding left of the mean
    squares = sum_over_groups(tl.sum(centred * centred, axis=1), group, ONE_GROUP) / n
    m, r = about + residue, tl.rsqrt(tl.maximum(squares - residue * residue, 0.0) + EPS)
    leader = inside & (channel % group_size == 0)
    tl.store(mean + sample * num_groups + group, m, mask=leader)
    tl.store(rstd + sample * num_groups + group, r, mask=leader)

    w, b = parameters(weight, bias, channel, inside, HAS_WEIGHT, HAS_BIAS, ARITHMETIC)
    z = (value - m[:, None]) * (r[:, None] * w) + b
    base, offsets = tile_at(sample, first, 0, channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
    tl.store(output + base + offsets, rounded(z * sigmoid(z), output.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["splits", "iterations"])
def group_norm_silu_fwd_partials_kernel(
    x, skip, partials, x_channels, skip_channels, pixels, splits, iterations,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, HAS_SKIP: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """Mean and sum of (x - mean)^2 of one part of the pixels, for every channel: partials [B, C, splits, 2].

    Every element of the tile keeps its own running mean and sum of squares (Welford), joined at the end (Chan).
    """
    sample, is_skip, first, channels, channel, split = block_of_program(
        tl.program_id(0), x_channels, skip_channels, splits, BLOCK_C, HAS_SKIP
    )
    source = select_tensor(is_skip, x, skip, HAS_SKIP)
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    inside = c < channels - first
    first_pixel = split.to(tl.int64) * iterations * BLOCK_P
    m = tl.zeros((BLOCK_C, BLOCK_P), dtype=ARITHMETIC)
    squares = tl.zeros((BLOCK_C, BLOCK_P), dtype=ARITHMETIC)
    count = tl.full((), 0, ARITHMETIC)
    for i in range(iterations):
        pixel = first_pixel + i * BLOCK_P
        base, offsets = tile_at(sample, first, pixel, channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        mask = inside[:, None] & (p < pixels - pixel)[None, :]
        value = tl.load(source + base + offsets, mask=mask, other=0).to(ARITHMETIC)
        count += 1.0
        delta = tl.where(mask, value - m, 0.0)
        m += delta * (1.0 / count)
        squares += delta * (value - m)
    left = pixels - first_pixel
    counts = tl.minimum(tl.maximum((left - p + (BLOCK_P - 1)) // BLOCK_P, 0), iterations).to(ARITHMETIC)[None, :]
    n = tl.minimum(left, iterations * BLOCK_P).to(ARITHMETIC)
    about = tl.sum(counts * m, axis=1) / n
    difference = m - about[:, None]
    residue = tl.sum(counts * difference, axis=1) / n
    difference -= residue[:, None]
    squares += counts * difference * difference
    place = ((sample * (x_channels + skip_channels) + channel + c) * splits + split) * 2
    tl.store(partials + place, about + residue, mask=inside)
    tl.store(partials + place + 1, tl.sum(squares, axis=1), mask=inside)


@triton.jit(do_not_specialize=["splits", "chunk"])
def group_norm_silu_fwd_combine_kernel(
    partials, mean, rstd, pixels, group_size, splits, chunk,
    EPS: tl.constexpr, BLOCK: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """mean and rstd of one group from its partials, `chunk` pixels each but the last (Chan)."""
    program = tl.program_id(0).to(tl.int64)
    run = group_size * splits
    n = tl.full((), 1, ARITHMETIC) * group_size * pixels
    total = tl.zeros((BLOCK,), dtype=ARITHMETIC)
    for first in range(0, run, BLOCK):
        m, _, count = _load_partials(partials + program * run * 2, first, run, pixels, splits, chunk, BLOCK, ARITHMETIC)
        total += count * m
    about = tl.sum(total) / n
    residues = tl.zeros((BLOCK,), dtype=ARITHMETIC)
    total = tl.zeros((BLOCK,), dtype=ARITHMETIC)
    for first in range(0, run, BLOCK):
        m, squares, count = _load_partials(
            partials + program * run * 2, first, run, pixels, splits, chunk, BLOCK, ARITHMETIC
        )  # fmt: skip
        residues += count * (m - about)
        total += squares + count * (m - about) * (m - about)
    residue = tl.sum(residues) / n
    variance = tl.maximum(tl.sum(total) / n - residue * residue, 0.0)
    tl.store(mean + program, about + residue)
    tl.store(rstd + program, tl.rsqrt(variance + EPS))


@triton.jit
def _load_partials(
    partials, first, run, pixels, splits, chunk, BLOCK: tl.constexpr, ARITHMETIC: tl.constexpr
):  # fmt: skip
    """Means, sums of squares and numbers of elements (0 past the end of the run)."""
    i = first + tl.arange(0, BLOCK)
    mask = i < run
    count = tl.minimum(pixels - i % splits * chunk, chunk).to(ARITHMETIC)
    m = tl.load(partials + 2 * i, mask=mask, other=0)
    squares = tl.load(partials + 2 * i + 1, mask=mask, other=0)
    return m, squares, tl.where(mask, count, 0.0)


@triton.jit(do_not_specialize=["splits", "iterations"])
def group_norm_silu_fwd_apply_kernel(
    x, skip, weight, bias, mean, rstd, output, x_channels, skip_channels, pixels, num_groups, group_size, splits,
    iterations, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, HAS_SKIP: tl.constexpr, HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr, CHANNELS_LAST: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """y = z sigmoid(z), z = (x - mean) rstd w + b. Reverse order: the data read last is still in the L2 cache."""
    sample, is_skip, first, channels, channel, split = block_of_program(
        tl.num_programs(0) - 1 - tl.program_id(0), x_channels, skip_channels, splits, BLOCK_C, HAS_SKIP
    )
    source = select_tensor(is_skip, x, skip, HAS_SKIP)
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    inside = c < channels - first
    m, r, w, b = normalisation(
        mean, rstd, weight, bias, sample, channel + c, inside, num_groups, group_size, HAS_WEIGHT, HAS_BIAS, ARITHMETIC
    )  # fmt: skip
    factor = r * w
    first_pixel = split.to(tl.int64) * iterations * BLOCK_P
    for i in range(iterations):
        pixel = first_pixel + i * BLOCK_P
        base, offsets = tile_at(sample, first, pixel, channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        mask = inside[:, None] & (p < pixels - pixel)[None, :]
        z = (tl.load(source + base + offsets, mask=mask, other=0).to(ARITHMETIC) - m) * factor + b
        base, offsets = tile_at(
            sample, channel, pixel, x_channels + skip_channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST
        )  # fmt: skip
        tl.store(output + base + offsets, rounded(z * sigmoid(z), output.dtype.element_ty), mask=mask)
