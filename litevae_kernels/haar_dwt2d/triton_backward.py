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
    level1,  # packed L H V D, [B, 4C, ceil(H / 2), ceil(W / 2)], dense in the tile's memory format
    level2,  # [B, 4C, ceil(H / 4), ceil(W / 4)] and so on; the levels past LEVELS are not accessed
    level3,
    level4,
    low_copy,  # with FROM_COPY: L of the coarsest level, [B, C, h, w], what the launch before has made
    image,  # the result, [B, C, H, W], dense in the tile's memory format
    height,  # H
    width,  # W
    factor,  # 1/2, or 1 for the mean; in the gradient of the DWT that of the DWT
    tiles,  # that cover a sample's group of channels
    tiles_w,  # of them, side by side
    LEVELS: tl.constexpr,  # 1 to 4
    TILE: tl.constexpr,
    WIDTH_DIVISOR: tl.constexpr,  # a power of two that divides W
    TRANSPOSE: tl.constexpr,  # the gradient of the DWT: values past an odd edge fold, and every L is added
    FROM_COPY: tl.constexpr,
):
    """For each 2x2 block with rows (a, b) and (c, d), from the coarsest level up; the result is the L of the next one.

        a = factor * (L + H + V + D)      b = factor * (L + H - V - D)
        c = factor * (L - H + V - D)      d = factor * (L - H - V + D)

    Values past an odd edge are dropped. Gradient: haar_dwt2d_fwd_kernel with TRANSPOSE.
    """
    place = tile_of_program(tiles, tiles_w, TILE)
    levels = (level1, level2, level3, level4)
    low = tl.full((TILE.rows, TILE.columns, TILE.lanes), 0, TILE.arithmetic)  # [R, S, N] of the coarsest level
    if FROM_COPY:
        low_height, low_width = level_side(height, LEVELS, 1), level_side(width, LEVELS, WIDTH_DIVISOR)
        low = tl.reshape(load_tile(low_copy, low_height, low_width, place, TILE, 0, 1, 0), low.shape)
    for k in tl.static_range(LEVELS):
        level_height, level_width = level_side(height, LEVELS - k, 1), level_side(width, LEVELS - k, WIDTH_DIVISOR)
        # [4, R, S, N], k levels below the coarsest; L only where it counts
        bands = load_tile(
            levels[LEVELS - 1 - k], level_height, level_width, place, TILE, k, 4, 0 if TRANSPOSE or k == 0 else 1
        )
        quad = _synthesise_level(low, bands, factor, TRANSPOSE or (k == 0 and not FROM_COPY))  # a b c d, [R, S, N] each
        if TRANSPOSE:
            finer_height, finer_width = level_side(height, LEVELS - k - 1, 1), level_side(width, LEVELS - k - 1, 1)
            quad = _fold(quad, finer_height, finer_width, place, TILE, k)
        low = _interleave(quad)  # [2R, 2S, N]
    store_tile(image, low[None], height, width, place, TILE, LEVELS)


@triton.jit
def _synthesise_level(low, bands, factor, ADD_LOW: tl.constexpr):
    """The corners a, b, c, d of the finer level's 2x2 blocks, [R, S, N] each, from its L and a level [4, R, S, N]."""
    R: tl.constexpr = low.shape[0]
    S: tl.constexpr = low.shape[1]
    N: tl.constexpr = low.shape[2]
    bands = tl.permute(tl.reshape(bands, (2, 2, R, S, N)), (2, 3, 4, 0, 1))  # [R, S, N, 2, 2]
    level_low, h, v, d = quarters(bands)  # [R, S, N] each
    if ADD_LOW:
        low += level_low
    return butterfly(low, h, v, d, factor)


@triton.jit
def _fold(quad, finer_height, finer_width, place, TILE: tl.constexpr, FINER: tl.constexpr):
    """Adds what lies past an odd edge of the finer level to its last row and column. `quad`: corners [R, S, N]."""
    a, b, c, d = quad
    _, _, first_row, first_column = place
    columns = (first_column << FINER) + tl.arange(0, TILE.columns << FINER)  # [S]
    past_column = (2 * columns + 1 == finer_width)[None, :, None]
    a, c = tl.where(past_column, a + b, a), tl.where(past_column, c + d, c)
    past_row = (2 * tile_rows(first_row, TILE.rows, FINER) + 1 == finer_height)[:, None, None]
    return tl.where(past_row, a + c, a), tl.where(past_row, b + d, b), c, d


@triton.jit
def _interleave(quad):
    """The corners of 2x2 blocks, [R, S, N] each -> [2R, 2S, N], even rows before odd ones."""
    a, b, c, d = quad
    blocks = tl.permute(join_quarters(a, b, c, d), (3, 0, 1, 4, 2))  # [R, S, N, 2, 2] -> [2, R, S, 2, N]
    return tl.reshape(blocks, (2 * a.shape[0], 2 * a.shape[1], a.shape[2]))
