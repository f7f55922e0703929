"""The Triton kernel of the analysis: from the image down to its sub-bands. Also the gradient of the synthesis.

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
    image,  # [B, C, H, W] of any strides: floating point, or uint8 for p / 127.5 - 1
    level1,  # results: packed L H V D, [B, 4C, ceil(H / 2), ceil(W / 2)], dense in the tile's memory format
    level2,  # [B, 4C, ceil(H / 4), ceil(W / 4)] and so on; the levels past LEVELS are not accessed
    level3,
    level4,
    low_copy,  # with COPY_LOW: the last L unrounded, [B, C, h, w], the image of the next launch
    stride_b,  # of the image, in elements
    stride_c,
    stride_h,
    stride_w,
    height,  # H
    width,  # W
    factor,  # 1/2, or 1/4 for the mean
    tiles,  # that cover a sample's group of channels
    tiles_w,  # of them, side by side
    LEVELS: tl.constexpr,  # 1 to 4
    TILE: tl.constexpr,
    WIDTH_DIVISOR: tl.constexpr,  # a power of two that divides W
    TRANSPOSE: tl.constexpr,  # the gradient of the inverse: zeros past an odd edge, and no L but the last
    COPY_LOW: tl.constexpr,
    EXTEND_ROWS: tl.constexpr,  # H is odd at some level, and its last row repeats
    EXTEND_COLUMNS: tl.constexpr,
    IMAGE_IN_RUNS: tl.constexpr,  # the image is dense in channels_last too, and the lanes hold its channels
):
    """For each 2x2 block with rows (a, b) and (c, d), at every level; L is the image of the next one.

        L = factor * (a + b + c + d)      H = factor * (a + b - c - d)
        V = factor * (a - b + c - d)      D = factor * (a - b - c + d)

    Gradient: haar_dwt2d_bwd_kernel with TRANSPOSE.
    """
    place = tile_of_program(tiles, tiles_w, TILE)
    sample, group, first_row, first_column = place
    rows = tile_rows(first_row, TILE.rows, LEVELS)  # [R], with R = rows << LEVELS and S = columns << LEVELS
    if EXTEND_ROWS:
        rows = extended(rows, LEVELS, height)
    first_column = first_column << LEVELS
    image += sample * stride_b
    if IMAGE_IN_RUNS and not EXTEND_COLUMNS:
        i = tl.arange(0, (TILE.columns << LEVELS) * TILE.lanes)[None, :]  # [1, S * N]
        mask = (rows < height)[:, None] & (i < (width - first_column) * TILE.channels)
        mask &= i < (TILE.columns << LEVELS) * TILE.channels
        low = tl.load(image + rows[:, None] * stride_h + first_column * TILE.channels + i, mask=mask, other=0)
        low = lanes_of_runs(low, 1, TILE)  # [R, S * N] -> [1, R, S, N]
        low = tl.reshape(low, (TILE.rows << LEVELS, TILE.columns << LEVELS, TILE.lanes))  # [R, S, N]
    else:
        columns = first_column + tl.arange(0, TILE.columns << LEVELS)  # [S]
        if EXTEND_COLUMNS:
            columns = extended(columns, LEVELS, width)
        channels = group * TILE.lanes + tl.arange(0, TILE.lanes)  # [N]
        rows, columns, channels = rows[:, None, None], columns[None, :, None], channels[None, None, :]
        mask = (rows < height) & (columns < width) & (channels < TILE.channels)
        low = tl.load(image + rows * stride_h + columns * stride_w + channels * stride_c, mask=mask, other=0)
    low = pixel_values(low, TILE.arithmetic)  # [R, S, N]
    levels = (level1, level2, level3, level4)
    for k in tl.static_range(LEVELS):
        level_height, level_width = level_side(height, k + 1, 1), level_side(width, k + 1, WIDTH_DIVISOR)
        low, bands = _analyse_level(low, factor, TRANSPOSE and (k < LEVELS - 1 or COPY_LOW))
        store_tile(levels[k], bands, level_height, level_width, place, TILE, LEVELS - 1 - k)
        if COPY_LOW and k == LEVELS - 1:
            store_tile(low_copy, low[None], level_height, level_width, place, TILE, 0)


@triton.jit
def _analyse_level(image, factor, HIDE_LOW: tl.constexpr):
    """[2R, 2S, N], even rows before odd ones -> L [R, S, N] and the four bands [4, R, S, N]; HIDE_LOW: zeros for L."""
    R: tl.constexpr = image.shape[0] // 2
    S: tl.constexpr = image.shape[1] // 2
    N: tl.constexpr = image.shape[2]
    blocks = tl.permute(tl.reshape(image, (2, R, S, 2, N)), (1, 2, 4, 0, 3))  # [R, S, N, 2, 2]
    a, b, c, d = quarters(blocks)  # [R, S, N] each
    low, h, v, d = butterfly(a, b, c, d, factor)
    bands = join_quarters(tl.zeros_like(low) if HIDE_LOW else low, h, v, d)  # [R, S, N, 2, 2]
    bands = tl.permute(bands, (3, 4, 0, 1, 2))  # [2, 2, R, S, N]
    return low, tl.reshape(bands, (4, R, S, N))
