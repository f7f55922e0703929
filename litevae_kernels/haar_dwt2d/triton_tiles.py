"""Tiles of the image and its sub-bands: how a Triton program reads and writes them.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

A program has one tile of the coarsest level of its launch, [rows, columns, lanes] of one sample, and all that lies
below it: 2^FINER times as many rows and columns FINER levels below. Lanes are channels: one in NCHW, several in
channels_last. Where the lanes hold all channels, a row of the tile is contiguous in memory, a run. It is read and
written in that order, 16 bytes a thread where it is aligned, and reordered in shared memory. Every channel count
compiles a kernel of its own. All offsets are 64-bit.

Shapes in comments are those of the values in a program: R = rows << FINER, S = columns << FINER, N = lanes.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from litevae_kernels.triton_rounding import rounded


class Tile(NamedTuple):
    """What a kernel is compiled for, the same in every program of a launch."""

    rows: int  # of the coarsest level; powers of two, as columns and lanes are
    columns: int
    lanes: int
    channels: int  # C of the image
    channels_last: bool  # the memory format of all tensors but the image that is read
    runs: bool  # channels_last with all channels in the lanes
    arithmetic: Any  # tl.float32 or tl.float64


@triton.jit
def level_side(image_side, LEVEL: tl.constexpr, DIVISOR: tl.constexpr):
    """ceil(image_side / 2^LEVEL), a level's side: rounding up at every level equals rounding up once.

    DIVISOR, a power of two that divides the image's side, tells the compiler that rows start aligned.
    """
    side = (image_side + ((1 << LEVEL) - 1)) >> LEVEL
    if (DIVISOR >> LEVEL) > 1:
        side = tl.multiple_of(side, DIVISOR >> LEVEL)
    return side


@triton.jit
def tile_rows(first, COUNT: tl.constexpr, FINER: tl.constexpr):
    """Row indices, FINER levels below, of COUNT rows of the coarsest level from `first` on.

    They are bit-reversed, even rows before odd ones at every level, so that a 2x2 block sits in one thread.
    """
    i = tl.arange(0, COUNT << FINER)
    row = first + i % COUNT
    for k in tl.static_range(FINER):
        row = 2 * row + ((i // COUNT) >> k & 1)
    return row


@triton.jit
def extended(positions, LEVELS: tl.constexpr, image_side):
    """The rows or columns that symmetric extension at every level reads in the place of `positions`.

    A position past the end of a level becomes that level's last one, from the coarsest level down.
    """
    position = positions >> LEVELS
    for k in tl.static_range(LEVELS):
        inside = level_side(image_side, LEVELS - 1 - k, 1)
        position = tl.minimum(2 * position + ((positions >> (LEVELS - 1 - k)) & 1), inside - 1)
    return position


@triton.jit
def pixel_values(pixels, ARITHMETIC: tl.constexpr):
    """The values of pixels; an 8-bit pixel p is p / 127.5 - 1, with the bits of a correctly rounded division.

    1 / 127.5 is 257 / 2^15 + 257 / 2^15 / 65535. p times the first term is exact, so the sum is rounded once, and it
    does not matter whether the compiler fuses it.
    """
    values = pixels.to(ARITHMETIC)
    if pixels.dtype == tl.uint8:
        values = (257.0 / 32768) * values + (257.0 / 32768 / 65535) * values - 1.0
    return values


@triton.jit
def quarters(x):
    """[..., 2, 2] -> x[..., 0, 0], x[..., 0, 1], x[..., 1, 0], x[..., 1, 1]."""
    left, right = tl.split(x)
    a, c = tl.split(left)
    b, d = tl.split(right)
    return a, b, c, d


@triton.jit
def join_quarters(a, b, c, d):
    """The inverse of `quarters`."""
    return tl.join(tl.join(a, c), tl.join(b, d))


@triton.jit
def butterfly(a, b, c, d, factor):
    """L, H, V, D of a 2x2 block, and the block of L, H, V, D: the matrix is symmetric."""
    return (
        factor * ((a + b) + (c + d)),
        factor * ((a + b) - (c + d)),
        factor * ((a - b) + (c - d)),
        factor * ((a - b) - (c - d)),
    )


@triton.jit
def lanes_of_runs(x, BANDS: tl.constexpr, TILE: tl.constexpr):
    """Runs [R, S * BANDS * N] -> [BANDS, R, S, N]; the values of lanes past the channels are undefined.

    A run has BANDS * channels elements a pixel, then surplus. One gather over the whole tile goes through shared memory
    once; a gather along rows, within a warp, would compile to a shuffle for every pair of elements.
    """
    R: tl.constexpr = x.shape[0]
    RUN: tl.constexpr = x.shape[1]
    S: tl.constexpr = RUN // (BANDS * TILE.lanes)
    bands, rows = tl.arange(0, BANDS)[:, None, None, None], tl.arange(0, R)[None, :, None, None]
    columns, lanes = tl.arange(0, S)[None, None, :, None], tl.arange(0, TILE.lanes)[None, None, None, :]
    source = rows * RUN + (columns * BANDS + bands) * TILE.channels + lanes  # [BANDS, R, S, N]
    x = tl.gather(tl.reshape(x, (R * RUN,)), tl.reshape(source, (R * RUN,)), 0)
    return tl.reshape(x, (BANDS, R, S, TILE.lanes))


@triton.jit
def _runs_of_lanes(x, TILE: tl.constexpr):
    """The inverse of `lanes_of_runs`: [BANDS, R, S, N] -> [R, S * BANDS * N]."""
    BANDS: tl.constexpr = x.shape[0]
    R: tl.constexpr = x.shape[1]
    S: tl.constexpr = x.shape[2]
    RUN: tl.constexpr = S * BANDS * TILE.lanes
    rows, i = tl.arange(0, R)[:, None], tl.arange(0, RUN)[None, :]
    columns, bands = tl.minimum(i // (TILE.channels * BANDS), S - 1), i // TILE.channels % BANDS
    source = ((bands * R + rows) * S + columns) * TILE.lanes + i % TILE.channels  # [R, S * BANDS * N]
    x = tl.gather(tl.reshape(x, (R * RUN,)), tl.reshape(source, (R * RUN,)), 0)
    return tl.reshape(x, (R, RUN))


@triton.jit
def _places(
    tensor,  # dense [B, BANDS * C, height, width], in the tile's memory format
    height,  # of this level
    width,
    place,  # of the program's tile, from tile_of_program
    TILE: tl.constexpr,
    FINER: tl.constexpr,  # how many levels this one lies below the coarsest
    BANDS: tl.constexpr,  # 4 for packed sub-bands, 1 for an image or L alone
    FIRST_BAND: tl.constexpr,  # bands before it are masked
):
    """Pointers to the program's part of a tensor, and their mask: [BANDS, R, S, N], or [R, S * BANDS * N] in runs."""
    sample, group, first_row, first_column = place
    rows, first_column = tile_rows(first_row, TILE.rows, FINER), first_column << FINER  # [R]
    if TILE.runs:
        i = tl.arange(0, (TILE.columns << FINER) * BANDS * TILE.lanes)[None, :]
        start = ((sample * height + rows) * width + first_column) * (BANDS * TILE.channels)  # [R]
        mask = (rows < height)[:, None] & (i < (width - first_column) * (BANDS * TILE.channels))
        return tensor + start[:, None] + i, mask & (i < (TILE.columns << FINER) * (BANDS * TILE.channels))
    else:
        rows = rows[None, :, None, None]
        columns = (first_column + tl.arange(0, TILE.columns << FINER))[None, None, :, None]
        bands = tl.arange(0, BANDS)[:, None, None, None]
        channels = (group * TILE.lanes + tl.arange(0, TILE.lanes))[None, None, None, :]
        mask = (rows < height) & (columns < width) & (bands >= FIRST_BAND) & (channels < TILE.channels)
        channels += bands * TILE.channels  # [BANDS, 1, 1, N]
        if TILE.channels_last:
            offsets = ((sample * height + rows) * width + columns) * (BANDS * TILE.channels) + channels
        else:
            offsets = ((sample * (BANDS * TILE.channels) + channels) * height + rows) * width + columns
        return tensor + offsets, mask


@triton.jit
def load_tile(
    tensor, height, width, place, TILE: tl.constexpr, FINER: tl.constexpr, BANDS: tl.constexpr, FIRST_BAND: tl.constexpr
):
    """[BANDS, R, S, N] in the arithmetic's dtype; bands below FIRST_BAND are undefined. Parameters: _places."""
    pointers, mask = _places(tensor, height, width, place, TILE, FINER, BANDS, FIRST_BAND)
    x = tl.load(pointers, mask=mask, other=0)
    if TILE.runs:
        x = lanes_of_runs(x, BANDS, TILE)
    return x.to(TILE.arithmetic)


@triton.jit
def store_tile(tensor, x, height, width, place, TILE: tl.constexpr, FINER: tl.constexpr):
    """Stores x, [BANDS, R, S, N], rounded to the tensor's dtype. Parameters: _places."""
    pointers, mask = _places(tensor, height, width, place, TILE, FINER, x.shape[0], 0)
    x = rounded(x, tensor.dtype.element_ty)
    if TILE.runs:
        x = _runs_of_lanes(x, TILE)
    tl.store(pointers, x, mask=mask)


@triton.jit
def tile_of_program(tiles, tiles_w, TILE: tl.constexpr):
    """Sample, group of channels, and first row and column of the coarsest level: divided in 32 bits, then widened.

    `tiles` cover a sample's group of channels, `tiles_w` of them side by side.
    """
    program = tl.program_id(0)
    plane, tile = program // tiles, program % tiles
    groups = (TILE.channels + TILE.lanes - 1) // TILE.lanes
    sample, group = plane // groups, plane % groups
    row, column = tile // tiles_w * TILE.rows, tile % tiles_w * TILE.columns
    return sample.to(tl.int64), group.to(tl.int64), row.to(tl.int64), column.to(tl.int64)
