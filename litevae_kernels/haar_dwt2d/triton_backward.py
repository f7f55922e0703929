"""The Triton kernel of the synthesis: from the sub-bands up to the image. Also the gradient of the analysis.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

One program reads a tile of the coarsest level of its launch, and makes 2^LEVELS times as many rows and columns of the
image. The levels between stay in registers.
"""

import triton
import triton.language as tl

from litevae_kernels.haar_dwt2d.triton_tiles import (
    butterfly,
    join_quarters,
    level_side,
    load_tile,
    quarters,
    store_tile,
    tile_of_program,
    tile_rows,
)


@triton.jit(do_not_specialize=["tiles", "tiles_w"])
def haar_dwt2d_bwd_kernel(
    level1, level2, level3, level4, low_copy, image, height, width, factor, tiles, tiles_w, LEVELS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr,
    WIDTH_DIVISOR: tl.constexpr, TRANSPOSE: tl.constexpr, FROM_COPY: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """a, b, c, d = factor * (L + H + V + D, L + H - V - D, L - H + V - D, L - H - V + D), from the coarsest level up.

    Values past an odd edge are dropped. TRANSPOSE (the gradient of the DWT) adds them to the last row or column
    instead, and adds the L of every level. FROM_COPY: the coarsest L comes from `low_copy` [B, C, h, w].
    """
    tile = tile_of_program(tiles, tiles_w, ROWS, COLUMNS, tl.cdiv(CHANNELS, LANES))
    low = tl.zeros((ROWS, COLUMNS, LANES), dtype=ARITHMETIC)
    if FROM_COPY:
        low = load_tile(
            low_copy, tile, level_side(height, LEVELS, 1), level_side(width, LEVELS, WIDTH_DIVISOR),
            ROWS, COLUMNS, 0, 1, 0, LANES, CHANNELS, CHANNELS_LAST,
        )  # fmt: skip
        low = tl.reshape(low, (ROWS, COLUMNS, LANES))
    for k in tl.static_range(LEVELS):
        low = _synthesise_level(
            low,
            level1 if LEVELS - k == 1 else (level2 if LEVELS - k == 2 else (level3 if LEVELS - k == 3 else level4)),
            tile, level_side(height, LEVELS - k, 1), level_side(width, LEVELS - k, WIDTH_DIVISOR),
            level_side(height, LEVELS - k - 1, 1), level_side(width, LEVELS - k - 1, 1), factor, ROWS, COLUMNS, k,
            TRANSPOSE or (k == 0 and not FROM_COPY), TRANSPOSE, CHANNELS, CHANNELS_LAST, ARITHMETIC,
        )  # fmt: skip
    store_tile(image, low[None], tile, height, width, ROWS, COLUMNS, LEVELS, CHANNELS, CHANNELS_LAST)


@triton.jit
def _synthesise_level(
    low, packed, tile, height, width, finer_height, finer_width, factor, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FINER: tl.constexpr, ADD_LOW: tl.constexpr, FOLD: tl.constexpr, CHANNELS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """[2 rows, 2 columns, LANES] values of the finer level, from its L and one level's tile."""
    LANES: tl.constexpr = low.shape[2]
    bands = load_tile(
        packed, tile, height, width, ROWS, COLUMNS, FINER, 4, 0 if ADD_LOW else 1, LANES, CHANNELS, CHANNELS_LAST
    )  # fmt: skip
    bands = tl.reshape(bands.to(ARITHMETIC), (2, 2, ROWS << FINER, COLUMNS << FINER, LANES))
    level_low, h, v, d = quarters(tl.permute(bands, (2, 3, 4, 0, 1)))
    if ADD_LOW:
        low += level_low
    top_left, top_right, bottom_left, bottom_right = butterfly(low, h, v, d, factor)
    if FOLD:
        past_column = (2 * ((tile[3] << FINER) + tl.arange(0, COLUMNS << FINER)) + 1 == finer_width)[None, :, None]
        top_left = tl.where(past_column, top_left + top_right, top_left)
        bottom_left = tl.where(past_column, bottom_left + bottom_right, bottom_left)
        past_row = (2 * tile_rows(tile[2], ROWS, FINER) + 1 == finer_height)[:, None, None]
        top_left = tl.where(past_row, top_left + bottom_left, top_left)
        top_right = tl.where(past_row, top_right + bottom_right, top_right)
    blocks = join_quarters(top_left, top_right, bottom_left, bottom_right)
    return tl.reshape(tl.permute(blocks, (3, 0, 1, 4, 2)), (ROWS << FINER + 1, COLUMNS << FINER + 1, LANES))
