"""The Triton kernels of the gradients of GroupNorm+SiLU: two launches for groups that fit a program, else three.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

With xhat = (x - mean) rstd, z = w xhat + b, s = sigmoid(z) and dz = grad s (1 + z (1 - s)): every channel of a sample
has S1 = sum of dz and S2 = sum of (dz xhat). A group of n elements has c1 = sum of (w S1) / n, c2 = sum of (w S2) / n.
dx = rstd (w dz - c1 - xhat c2),   dw = sum over B of S2,   db = sum over B of S1.
"""

import triton
import triton.language as tl

from litevae_kernels.group_norm_silu.triton_tiles import (
    block_of_program,
    normalisation,
    select_tensor,
    silu_gradient,
    sum_over_groups,
    tile_at,
)
from litevae_kernels.triton_rounding import rounded


@triton.jit
def group_norm_silu_bwd_kernel(
    grad, x, skip, weight, bias, mean, rstd, x_grad, skip_grad, partials, x_channels, skip_channels, pixels, num_groups,
    group_size,
    CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, ONE_GROUP: tl.constexpr,
    HAS_SKIP: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """dx of the whole groups of CHANNELS channels, and S1, S2 in partials [B, C, 1, 2]: two reads, one write."""
    channels = x_channels + skip_channels
    blocks = tl.cdiv(channels, CHANNELS)
    sample, first = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * CHANNELS
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    channel = first + c
    group = channel // group_size
    inside = (c < CHANNELS) & (channel < channels)
    mask = inside[:, None] & (p < pixels)[None, :]
    x_mask, skip_mask = mask & (channel < x_channels)[:, None], mask & (channel >= x_channels)[:, None]
    base, offsets = tile_at(sample, first, 0, channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
    g = tl.load(grad + base + offsets, mask=mask, other=0).to(ARITHMETIC)
    x_base, x_offsets = tile_at(sample, first, 0, x_channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
    value = tl.load(x + x_base + x_offsets, mask=x_mask, other=0).to(ARITHMETIC)
    if HAS_SKIP:
        skip_base, skip_offsets = tile_at(
            sample, first - x_channels, 0, skip_channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST
        )  # fmt: skip
        value += tl.load(skip + skip_base + skip_offsets, mask=skip_mask, other=0).to(ARITHMETIC)

    m, r, w, b = normalisation(
        mean, rstd, weight, bias, sample, channel, inside, num_groups, group_size, HAS_WEIGHT, HAS_BIAS, ARITHMETIC
    )  # fmt: skip
    xhat = (value - m) * r
    dz = silu_gradient(g, xhat * w + b)
    s1, s2 = tl.sum(dz, axis=1), tl.sum(dz * xhat, axis=1)
    place = (sample * channels + channel) * 2
    tl.store(partials + place, s1, mask=inside)
    tl.store(partials + place + 1, s2, mask=inside)
    n = tl.full((), 1, ARITHMETIC) * group_size * pixels
    channel_weights = tl.reshape(w, (BLOCK_C,))
    c1 = sum_over_groups(channel_weights * s1, group, ONE_GROUP)[:, None] / n
    c2 = sum_over_groups(channel_weights * s2, group, ONE_GROUP)[:, None] / n
    dx = r * (w * dz - c1 - xhat * c2)
    tl.store(x_grad + x_base + x_offsets, rounded(dx, x_grad.dtype.element_ty), mask=x_mask)
    if HAS_SKIP:
        tl.store(skip_grad + skip_base + skip_offsets, rounded(dx, skip_grad.dtype.element_ty), mask=skip_mask)


@triton.jit(do_not_specialize=["splits", "iterations"])
def group_norm_silu_bwd_partials_kernel(
    grad, x, skip, weight, bias, mean, rstd, partials, x_channels, skip_channels, pixels, num_groups, group_size,
    splits, iterations, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, HAS_SKIP: tl.constexpr,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, CHANNELS_LAST: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """S1 and S2 of one part of the pixels, for every channel: partials [B, C, splits, 2]."""
    sample, is_skip, first, channels, channel, split = block_of_program(
        tl.program_id(0), x_channels, skip_channels, splits, BLOCK_C, HAS_SKIP
    )
    source, all_channels = select_tensor(is_skip, x, skip, HAS_SKIP), x_channels + skip_channels
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    inside = c < channels - first
    m, r, w, b = normalisation(
        mean, rstd, weight, bias, sample, channel + c, inside, num_groups, group_size, HAS_WEIGHT, HAS_BIAS, ARITHMETIC
    )  # fmt: skip
    first_pixel = split.to(tl.int64) * iterations * BLOCK_P
    s1 = tl.zeros((BLOCK_C, BLOCK_P), dtype=ARITHMETIC)
    s2 = tl.zeros((BLOCK_C, BLOCK_P), dtype=ARITHMETIC)
    for i in range(iterations):
        pixel = first_pixel + i * BLOCK_P
        mask = inside[:, None] & (p < pixels - pixel)[None, :]
        base, offsets = tile_at(sample, channel, pixel, all_channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        g = tl.load(grad + base + offsets, mask=mask, other=0).to(ARITHMETIC)
        base, offsets = tile_at(sample, first, pixel, channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        xhat = (tl.load(source + base + offsets, mask=mask, other=0).to(ARITHMETIC) - m) * r
        dz = silu_gradient(g, xhat * w + b)
        s1 += dz
        s2 += dz * xhat
    place = ((sample * all_channels + channel + c) * splits + split) * 2
    tl.store(partials + place, tl.sum(s1, axis=1), mask=inside)
    tl.store(partials + place + 1, tl.sum(s2, axis=1), mask=inside)


@triton.jit(do_not_specialize=["batch", "batch_groups", "splits"])
def group_norm_silu_bwd_combine_kernel(
    partials, weight, coefficients, weight_grad, bias_grad, batch, batch_groups, channels, pixels, num_groups,
    group_size, splits, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """The first `batch_groups` programs: c1 and c2 of one group, [B, G, 2]. Others: dw and db of CHANNELS channels."""
    program = tl.program_id(0)
    if program < batch_groups:
        _combine_group(
            partials, weight, coefficients, program, pixels, num_groups, group_size, splits,
            BLOCK, HAS_WEIGHT, ARITHMETIC,
        )  # fmt: skip
    else:
        first_channel = (program - batch_groups) * CHANNELS
        _combine_parameters(
            partials, weight_grad, bias_grad, first_channel, batch, channels, splits, CHANNELS, BLOCK // CHANNELS,
            HAS_WEIGHT, HAS_BIAS, ARITHMETIC,
        )  # fmt: skip


@triton.jit
def _combine_group(
    partials, weight, coefficients, group, pixels, num_groups, group_size, splits,
    BLOCK: tl.constexpr, HAS_WEIGHT: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    s1, s2 = tl.zeros((BLOCK,), dtype=ARITHMETIC), tl.zeros((BLOCK,), dtype=ARITHMETIC)
    weight += group % num_groups * group_size
    partials += group.to(tl.int64) * group_size * splits * 2
    for first in range(0, group_size * splits, BLOCK):
        i = first + tl.arange(0, BLOCK)
        mask = i < group_size * splits
        w = tl.full((BLOCK,), 1, ARITHMETIC)
        if HAS_WEIGHT:
            w = tl.load(weight + i // splits, mask=mask, other=0).to(ARITHMETIC)
        s1 += w * tl.load(partials + 2 * i, mask=mask, other=0)
        s2 += w * tl.load(partials + 2 * i + 1, mask=mask, other=0)
    n = tl.full((), 1, ARITHMETIC) * group_size * pixels
    tl.store(coefficients + 2 * group, tl.sum(s1) / n)
    tl.store(coefficients + 2 * group + 1, tl.sum(s2) / n)


@triton.jit
def _combine_parameters(
    partials, weight_grad, bias_grad, first_channel, batch, channels, splits,
    BLOCK_C: tl.constexpr, BLOCK: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    s1 = tl.zeros((BLOCK_C, BLOCK), dtype=ARITHMETIC)
    s2 = tl.zeros((BLOCK_C, BLOCK), dtype=ARITHMETIC)
    channel = first_channel + tl.arange(0, BLOCK_C)
    inside = channel < channels
    for first in range(0, batch * splits, BLOCK):
        i = first + tl.arange(0, BLOCK)
        mask = inside[:, None] & (i < batch * splits)[None, :]
        row = (i // splits).to(tl.int64) * channels
        place = ((row[None, :] + channel[:, None]) * splits + (i % splits)[None, :]) * 2
        s1 += tl.load(partials + place, mask=mask, other=0)
        s2 += tl.load(partials + place + 1, mask=mask, other=0)
    if HAS_WEIGHT:
        tl.store(weight_grad + channel, rounded(tl.sum(s2, axis=1), weight_grad.dtype.element_ty), mask=inside)
    if HAS_BIAS:
        tl.store(bias_grad + channel, rounded(tl.sum(s1, axis=1), bias_grad.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["splits", "iterations"])
def group_norm_silu_bwd_apply_kernel(
    grad, x, skip, weight, bias, mean, rstd, coefficients, x_grad, skip_grad, x_channels, skip_channels, pixels,
    num_groups, group_size, splits, iterations,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, HAS_SKIP: tl.constexpr, HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr, CHANNELS_LAST: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """dx = rstd (w dz - c1 - xhat c2). Reverse order: the data read last is still in the L2 cache."""
    sample, is_skip, first, channels, channel, split = block_of_program(
        tl.num_programs(0) - 1 - tl.program_id(0), x_channels, skip_channels, splits, BLOCK_C, HAS_SKIP
    )
    source, all_channels = select_tensor(is_skip, x, skip, HAS_SKIP), x_channels + skip_channels
    result = select_tensor(is_skip, x_grad, skip_grad, HAS_SKIP)
    c, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    inside = c < channels - first
    m, r, w, b = normalisation(
        mean, rstd, weight, bias, sample, channel + c, inside, num_groups, group_size, HAS_WEIGHT, HAS_BIAS, ARITHMETIC
    )  # fmt: skip
    group = sample * num_groups + (channel + c) // group_size
    c1 = tl.load(coefficients + 2 * group, mask=inside, other=0)[:, None]
    c2 = tl.load(coefficients + 2 * group + 1, mask=inside, other=0)[:, None]
    first_pixel = split.to(tl.int64) * iterations * BLOCK_P
    for i in range(iterations):
        pixel = first_pixel + i * BLOCK_P
        mask = inside[:, None] & (p < pixels - pixel)[None, :]
        base, offsets = tile_at(sample, channel, pixel, all_channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        g = tl.load(grad + base + offsets, mask=mask, other=0).to(ARITHMETIC)
        base, offsets = tile_at(sample, first, pixel, channels, pixels, BLOCK_C, BLOCK_P, CHANNELS_LAST)
        xhat = (tl.load(source + base + offsets, mask=mask, other=0).to(ARITHMETIC) - m) * r
        dx = r * (w * silu_gradient(g, xhat * w + b) - c1 - xhat * c2)
        tl.store(result + base + offsets, rounded(dx, result.dtype.element_ty), mask=mask)
