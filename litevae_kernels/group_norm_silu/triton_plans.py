"""How the Triton kernels of GroupNorm+SiLU divide the work: tiles, slices of pixels, programs; their launches, kept.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

Groups that fit the registers of one program are read once. Larger ones are read twice, with partial results of `parts`
of the pixels in between. What fits, and the parts, follow from the sizes of a sample, its dtype and its memory format
alone: so a sample's result does not depend on the batch that it is in. The slices of the second launch follow the
batch; no result depends on them. No atomics: every partial result has one writer.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
import triton

from litevae_kernels.group_norm_silu import triton_backward, triton_forward
from litevae_kernels.triton_launch import Launch

WHOLE_GROUPS_ELEMENTS = 16384  # of a program for whole groups, at most: a multiprocessor has registers for two
TILE_ELEMENTS = 2048  # of a program for a part of the pixels (float64: half)
PART_TILES = 8  # tiles of a part or slice, at least: to join the parts takes a program as long as two or three tiles
ENOUGH_PARTS = 16  # of a block of channels, which are joined at once; where there would be more, parts are larger,
MOST_PART_TILES = 32  # up to this; and then there are more,
MOST_PARTS = 256  # up to this
FEWEST_PROGRAMS = 256  # of the second launch, two for each multiprocessor of a large GPU: its slices are smaller before
ENOUGH_PROGRAMS = 2048  # two waves, with room for seven programs on a multiprocessor: its slices are larger before
PARAMETERS_TILE = (16, 64)  # channels, and parts, of a program that sums the gradients of weight and bias


class Kind(NamedTuple):
    """All that launches depend on but eps: they are kept by it."""

    shape: torch.Size  # of x
    skip_channels: int
    num_groups: int
    dtype: torch.dtype  # of x
    weight_dtype: torch.dtype | None
    bias_dtype: torch.dtype | None
    channels_last: bool
    device: int


class Sizes(NamedTuple):
    """The sizes of a sample of concat(x, skip)."""

    x_channels: int
    skip_channels: int
    pixels: int
    group_size: int


class Slices(NamedTuple):
    """The pixels of a sample, cut into `number` slices of so many tiles each, the last one perhaps smaller."""

    number: int
    tiles: int


class Whole(NamedTuple):
    """The kernels' constants for whole groups, and what follows from them."""

    programs: int  # for a sample
    constants: dict[str, Any]
    num_warps: int


class Cut(NamedTuple):
    """A sample of `blocks` blocks of channels, all of x or all of skip, whose pixels are cut into parts."""

    blocks: int
    parts: Slices
    constants: dict[str, int]


class Launches(NamedTuple):
    """The launches of one direction for tensors of one kind."""

    partials: Launch | None  # None: groups that fit a program
    result: Launch
    parameters: Launch | None  # the gradients of weight and bias
    workspace: int  # elements of the partial results, in the dtype of the arithmetic


@functools.lru_cache(maxsize=1024)
def forward_launches(kind: Kind, eps: float, keeps_statistics: bool) -> Launches:
    """fwd_kernel(x, skip, weight, bias, output, mean, rstd), or fwd_partials_kernel(x, skip, partials) and
    fwd_apply_kernel(x, skip, weight, bias, output, mean, rstd, partials)."""
    batch, sizes, flags = kind.shape[0], _sizes(kind), {"CHANNELS_LAST": kind.channels_last}
    whole = whole_groups(sizes, kind.channels_last, kind.dtype, backward=False)
    if whole is not None:
        constants = {"EPS": eps} | whole.constants | flags
        kernel = triton_forward.group_norm_silu_fwd_kernel
        launch = Launch(kernel, batch * whole.programs, (sizes,), constants, whole.num_warps)
        return Launches(None, launch, None, 0)
    blocks, parts, tile = cut = cut_sample(sizes, kind.channels_last, kind.dtype)
    slices = slices_of(cut, sizes.pixels, batch)
    partials = Launch(
        triton_forward.group_norm_silu_fwd_partials_kernel, batch * blocks * parts.number, (sizes, *parts), tile | flags
    )
    result = Launch(
        triton_forward.group_norm_silu_fwd_apply_kernel,
        batch * blocks * slices.number,
        (sizes, *parts, *slices),
        {"EPS": eps, "MEMBERS": _members(tile)} | tile | flags,
    )
    return Launches(partials, result, None, _workspace(batch, sizes, parts.number))


@functools.lru_cache(maxsize=1024)
def backward_launches(kind: Kind) -> Launches:
    """bwd_kernel(grad, x, skip, weight, bias, mean, rstd, x_grad, skip_grad, partials), or bwd_partials_kernel without
    the two gradients and bwd_apply_kernel; then bwd_parameters_kernel(partials, weight_grad, bias_grad)."""
    batch, sizes, flags = kind.shape[0], _sizes(kind), {"CHANNELS_LAST": kind.channels_last}
    whole = whole_groups(sizes, kind.channels_last, kind.dtype, backward=True)
    if whole is not None:
        kernel = triton_backward.group_norm_silu_bwd_kernel
        launch = Launch(kernel, batch * whole.programs, (sizes,), whole.constants | flags, whole.num_warps)
        return Launches(None, launch, _parameters(kind, sizes, 1), _workspace(batch, sizes, 1))
    blocks, parts, tile = cut = cut_sample(sizes, kind.channels_last, kind.dtype)
    slices = slices_of(cut, sizes.pixels, batch)
    partials = Launch(
        triton_backward.group_norm_silu_bwd_partials_kernel,
        batch * blocks * parts.number,
        (sizes, *parts),
        tile | flags,
    )
    result = Launch(
        triton_backward.group_norm_silu_bwd_apply_kernel,
        batch * blocks * slices.number,
        (sizes, *parts, *slices),
        {"MEMBERS": _members(tile)} | tile | flags,
    )
    parameters = _parameters(kind, sizes, parts.number)
    return Launches(partials, result, parameters, _workspace(batch, sizes, parts.number))


def whole_groups(sizes: Sizes, channels_last: bool, dtype: torch.dtype, backward: bool) -> Whole | None:
    """The tile [BLOCK_C, BLOCK_P] of whole groups of one sample, CHANNELS channels; None where they are too large."""
    channels = sizes.x_channels + sizes.skip_channels
    most_elements = WHOLE_GROUPS_ELEMENTS // (4 if dtype == torch.float64 else 1)
    most_elements //= (2 if channels_last else 1) * (2 if backward else 1)
    block_p = triton.next_power_of_2(sizes.pixels)
    for access in (32, 16) if channels_last else (0,):  # bytes side by side, at least; aligned to 16
        group_bytes = sizes.group_size * dtype.itemsize
        step = 16 // math.gcd(16, group_bytes) if channels_last else 1
        groups = min(max(step * triton.cdiv(access, step * group_bytes), 1), channels // sizes.group_size)
        block_c = triton.next_power_of_2(groups * sizes.group_size)
        if block_c * block_p <= most_elements:
            break
    else:
        return None
    if groups > 1 and block_c > 64:
        return None
    constants = {"CHANNELS": groups * sizes.group_size, "ONE_GROUP": groups == 1}
    constants |= {"BLOCK_C": block_c, "BLOCK_P": block_p}
    # 32 elements a thread in channels_last: with fewer, sums are mostly exchanges between threads.
    warps = block_c * block_p // (1024 if channels_last and dtype != torch.float64 else 512)
    return Whole(triton.cdiv(channels, groups * sizes.group_size), constants, min(max(warps, 1), 16))


def cut_sample(sizes: Sizes, channels_last: bool, dtype: torch.dtype) -> Cut:
    """Tiles with accesses of 16 bytes where the sizes allow, and parts of several of them."""
    elements = TILE_ELEMENTS // (2 if dtype == torch.float64 else 1)
    most_channels = triton.next_power_of_2(max(sizes.x_channels, sizes.skip_channels))
    if channels_last:
        common = math.gcd(sizes.x_channels, sizes.skip_channels)
        aligned = common & -common  # the largest power of two that divides both
        block_c = min(64, aligned if aligned >= 16 else most_channels)
        block_p = min(elements // block_c, triton.next_power_of_2(sizes.pixels))
    else:
        block_p = min(elements, triton.next_power_of_2(sizes.pixels))
        block_c = min(elements // block_p, most_channels)
    blocks = triton.cdiv(sizes.x_channels, block_c) + triton.cdiv(sizes.skip_channels, block_c)
    tiles = triton.cdiv(sizes.pixels, block_p)
    parts = min(triton.cdiv(tiles, MOST_PART_TILES), MOST_PARTS)
    parts = min(max(parts, ENOUGH_PARTS), triton.cdiv(tiles, PART_TILES))
    return Cut(blocks, _slices(tiles, triton.cdiv(tiles, parts)), {"BLOCK_C": block_c, "BLOCK_P": block_p})


def slices_of(cut: Cut, pixels: int, batch: int) -> Slices:
    """The slices of the second launch, on which no result depends: they follow the batch."""
    tiles = triton.cdiv(pixels, cut.constants["BLOCK_P"])
    all_tiles = batch * cut.blocks * tiles
    tiles_of_each = max(all_tiles // ENOUGH_PROGRAMS, min(all_tiles // FEWEST_PROGRAMS, PART_TILES), 1)
    return _slices(tiles, min(tiles_of_each, tiles))


def _slices(tiles: int, tiles_of_each: int) -> Slices:
    return Slices(triton.cdiv(tiles, tiles_of_each), tiles_of_each)


def _sizes(kind: Kind) -> Sizes:
    _, channels, height, width = kind.shape
    return Sizes(channels, kind.skip_channels, height * width, (channels + kind.skip_channels) // kind.num_groups)


def _members(tile: dict[str, int]) -> int:
    return 32 if tile["BLOCK_C"] >= 16 else 16


def _workspace(batch: int, sizes: Sizes, parts: int) -> int:
    return batch * 2 * parts * (sizes.x_channels + sizes.skip_channels)


def _parameters(kind: Kind, sizes: Sizes, parts: int) -> Launch | None:
    if kind.weight_dtype is None and kind.bias_dtype is None:
        return None
    channels, (block_c, block_rows) = sizes.x_channels + sizes.skip_channels, PARAMETERS_TILE
    constants = {"BLOCK_C": block_c, "BLOCK_ROWS": block_rows}
    kernel = triton_backward.group_norm_silu_bwd_parameters_kernel
    return Launch(kernel, triton.cdiv(channels, block_c), (channels, kind.shape[0], parts), constants)
