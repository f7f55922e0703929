"""The Triton kernel of the analysis: from the image down to its sub-bands.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

One program makes a tile of the coarsest level of its launch, and so reads 2^LEVELS times as many rows and columns of
the image. The levels between stay in registers.
"""

import triton
import triton.language as tl

from litevae_kernels.haar_dwt2d.triton_tiles import (
    butterfly,
    extended,
    join_quarters,
    lanes_of_runs,
    level_side,
    pixel_values,
    quarters,
    store_tile,
    tile_of_program,
    tile_rows,
)


@triton.jit(do_not_specialize=["tiles", "tiles_w"])
def haar_dwt2d_fwd_kernel(
    image, level1, level2, level3, level4, low_copy, stride_b, stride_c, stride_h, stride_w, height, width, factor,
    tiles, tiles_w, LEVELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH_DIVISOR: tl.constexpr, TRANSPOSE: tl.constexpr, COPY_LOW: tl.constexpr,
    EXTEND_ROWS: tl.constexpr, EXTEND_COLUMNS: tl.constexpr, IMAGE_IN_RUNS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """L, H, V, D = factor * (a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d) of each 2x2 block; L recurses.

    TRANSPOSE (the gradient of the inverse): positions past an odd edge read as zero, and only the L of the last level
    is stored. COPY_LOW: the last L is also stored, unrounded, in `low_copy` [B, C, h, w], the next launch's image.
    """
    tile = tile_of_program(tiles, tiles_w, ROWS, COLUMNS, tl.cdiv(CHANNELS, LANES))
    sample, group, first_row, first_column = tile
    rows = tile_rows(first_row, ROWS, LEVELS)
    if EXTEND_ROWS:
        rows = extended(rows, LEVELS, height)
    first_column = first_column << LEVELS
    image += sample * stride_b
    if IMAGE_IN_RUNS and not EXTEND_COLUMNS:
        i = tl.arange(0, (COLUMNS << LEVELS) * LANES)[None, :]
        mask = (rows < height)[:, None] & (i < (width - first_column) * CHANNELS) & (i < (COLUMNS << LEVELS) * CHANNELS)
        low = tl.load(image + rows[:, None] * stride_h + first_column * CHANNELS + i, mask=mask, other=0)
        low = pixel_values(lanes_of_runs(low, 1, COLUMNS << LEVELS, LANES, CHANNELS), ARITHMETIC)
        low = tl.reshape(low, (ROWS << LEVELS, COLUMNS << LEVELS, LANES))
    else:
        columns = first_column + tl.arange(0, COLUMNS << LEVELS)
        if EXTEND_COLUMNS:
            columns = extended(columns, LEVELS, width)
        channels = group * LANES + tl.arange(0, LANES)
        rows, columns, channels = rows[:, None, None], columns[None, :, None], channels[None, None, :]
        mask = (rows < height) & (columns < width) & (channels < CHANNELS)
        pixels = image + rows * stride_h + columns * stride_w + channels * stride_c
        low = pixel_values(tl.load(pixels, mask=mask, other=0), ARITHMETIC)
    for k in tl.static_range(LEVELS):
        low = _analyse_level(
            low, level1 if k == 0 else (level2 if k == 1 else (level3 if k == 2 else level4)), low_copy, tile,
            level_side(height, k + 1, 1), level_side(width, k + 1, WIDTH_DIVISOR), factor,
            ROWS, COLUMNS, LEVELS - 1 - k, TRANSPOSE and (k < LEVELS - 1 or COPY_LOW), COPY_LOW and k == LEVELS - 1,
            CHANNELS, CHANNELS_LAST,
        )  # fmt: skip


@triton.jit
def _analyse_level(
    image, packed, low_copy, tile, height, width, factor, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FINER: tl.constexpr, HIDE_LOW: tl.constexpr, COPY_LOW: tl.constexpr,
    CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Stores one level's tile of L H V D from [2 rows, 2 columns, LANES] values; returns L [rows, columns, LANES]."""
    LANES: tl.constexpr = image.shape[2]
    blocks = tl.permute(tl.reshape(image, (2, ROWS << FINER, COLUMNS << FINER, 2, LANES)), (1, 2, 4, 0, 3))
    a, b, c, d = quarters(blocks)
    low, h, v, d = butterfly(a, b, c, d, factor)
    bands = tl.permute(join_quarters(tl.zeros_like(low) if HIDE_LOW else low, h, v, d), (3, 4, 0, 1, 2))
    bands = tl.reshape(bands, (4, ROWS << FINER, COLUMNS << FINER, LANES))
    store_tile(packed, bands, tile, height, width, ROWS, COLUMNS, FINER, CHANNELS, CHANNELS_LAST)
    if COPY_LOW:
        store_tile(low_copy, low[None], tile, height, width, ROWS, COLUMNS, FINER, CHANNELS, CHANNELS_LAST)
    return low
