"""Tiles of the image and its sub-bands: how a Triton program reads and writes them.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

A tile is [ROWS, COLUMNS, LANES]. Lanes are channels: one in NCHW, up to MAX_LANES in channels_last. Where the lanes
hold all channels, a row of the tile is contiguous in memory. It is read and written in that order, 16 bytes a thread
where it is aligned, and reordered in shared memory. Every channel count compiles a kernel of its own. All offsets are
64-bit.
"""

import triton
import triton.language as tl

from litevae_kernels.triton_rounding import rounded


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
def lanes_of_runs(x, BANDS: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr):
    """Contiguous rows [ROWS, COLUMNS * BANDS * LANES] -> [BANDS, ROWS, COLUMNS, LANES]; surplus lanes are undefined.

    A row has BANDS * CHANNELS elements a pixel, then surplus. One gather over the whole tile goes through shared memory
    once; a gather along rows, within a warp, would compile to a shuffle for every pair of elements.
    """
    ROWS: tl.constexpr = x.shape[0]
    RUN: tl.constexpr = COLUMNS * BANDS * LANES
    bands, rows = tl.arange(0, BANDS)[:, None, None, None], tl.arange(0, ROWS)[None, :, None, None]
    columns, lanes = tl.arange(0, COLUMNS)[None, None, :, None], tl.arange(0, LANES)[None, None, None, :]
    source = rows * RUN + (columns * BANDS + bands) * CHANNELS + lanes
    x = tl.gather(tl.reshape(x, (ROWS * RUN,)), tl.reshape(source, (ROWS * RUN,)), 0)
    return tl.reshape(x, (BANDS, ROWS, COLUMNS, LANES))


@triton.jit
def _runs_of_lanes(x, CHANNELS: tl.constexpr):
    """The inverse of `lanes_of_runs`."""
    BANDS: tl.constexpr = x.shape[0]
    ROWS: tl.constexpr = x.shape[1]
    COLUMNS: tl.constexpr = x.shape[2]
    LANES: tl.constexpr = x.shape[3]
    RUN: tl.constexpr = COLUMNS * BANDS * LANES
    rows, i = tl.arange(0, ROWS)[:, None], tl.arange(0, RUN)[None, :]
    columns, bands, lanes = tl.minimum(i // (CHANNELS * BANDS), COLUMNS - 1), i // CHANNELS % BANDS, i % CHANNELS
    source = ((bands * ROWS + rows) * COLUMNS + columns) * LANES + lanes
    x = tl.gather(tl.reshape(x, (ROWS * RUN,)), tl.reshape(source, (ROWS * RUN,)), 0)
    return tl.reshape(x, (ROWS, RUN))


@triton.jit
def _places(
    tensor, tile, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, FINER: tl.constexpr, BANDS: tl.constexpr,
    FIRST_BAND: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Pointers to a tile of a dense tensor [B, BANDS * CHANNELS, height, width], and their mask.

    [BANDS, ROWS, COLUMNS, LANES], but [ROWS, COLUMNS * BANDS * LANES] where a row of the tile is contiguous in memory.
    """
    sample, group, first_row, first_column = tile
    rows, first_column = tile_rows(first_row, ROWS, FINER), first_column << FINER
    if CHANNELS_LAST and CHANNELS <= LANES:
        i = tl.arange(0, (COLUMNS << FINER) * BANDS * LANES)[None, :]
        start = ((sample * height + rows) * width + first_column) * (BANDS * CHANNELS)
        mask = (rows < height)[:, None] & (i < (width - first_column) * (BANDS * CHANNELS))
        return tensor + start[:, None] + i, mask & (i < (COLUMNS << FINER) * (BANDS * CHANNELS))
    else:
        rows = rows[None, :, None, None]
        columns = (first_column + tl.arange(0, COLUMNS << FINER))[None, None, :, None]
        bands = tl.arange(0, BANDS)[:, None, None, None]
        channels = (group * LANES + tl.arange(0, LANES))[None, None, None, :]
        mask = (rows < height) & (columns < width) & (bands >= FIRST_BAND) & (channels < CHANNELS)
        channels += bands * CHANNELS
        if CHANNELS_LAST:
            offsets = ((sample * height + rows) * width + columns) * (BANDS * CHANNELS) + channels
        else:
            offsets = ((sample * (BANDS * CHANNELS) + channels) * height + rows) * width + columns
        return tensor + offsets, mask


@triton.jit
def load_tile(
    tensor, tile, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, FINER: tl.constexpr, BANDS: tl.constexpr,
    FIRST_BAND: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """[BANDS, ROWS, COLUMNS, LANES]. Values of bands below FIRST_BAND are undefined."""
    pointers, mask = _places(
        tensor, tile, height, width, ROWS, COLUMNS, FINER, BANDS, FIRST_BAND, LANES, CHANNELS, CHANNELS_LAST
    )  # fmt: skip
    x = tl.load(pointers, mask=mask, other=0)
    if CHANNELS_LAST and CHANNELS <= LANES:
        x = lanes_of_runs(x, BANDS, COLUMNS << FINER, LANES, CHANNELS)
    return x


@triton.jit
def store_tile(
    tensor, x, tile, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, FINER: tl.constexpr,
    CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """x is [BANDS, ROWS, COLUMNS, LANES]."""
    BANDS: tl.constexpr = x.shape[0]
    LANES: tl.constexpr = x.shape[3]
    pointers, mask = _places(
        tensor, tile, height, width, ROWS, COLUMNS, FINER, BANDS, 0, LANES, CHANNELS, CHANNELS_LAST
    )  # fmt: skip
    x = rounded(x, tensor.dtype.element_ty)
    if CHANNELS_LAST and CHANNELS <= LANES:
        x = _runs_of_lanes(x, CHANNELS)
    tl.store(pointers, x, mask=mask)


@triton.jit
def tile_of_program(tiles, tiles_w, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUPS: tl.constexpr):
    """Sample, group of channels, first row and first column of the coarsest level: divided in 32 bits, then widened."""
    program = tl.program_id(0)
    plane, tile = program // tiles, program % tiles
    sample, group, row, column = plane // GROUPS, plane % GROUPS, tile // tiles_w * ROWS, tile % tiles_w * COLUMNS
    return sample.to(tl.int64), group.to(tl.int64), row.to(tl.int64), column.to(tl.int64)
