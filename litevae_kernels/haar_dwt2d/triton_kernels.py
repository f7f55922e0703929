"""How does a GPU compute the multi-level Haar transform and its inverse? Triton kernels and their launchers.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

One program makes a tile of the coarsest level of its launch, and so 2^LEVELS times as many rows and columns of the
image; the levels between stay in registers. One launch covers up to MAX_FUSED_LEVELS levels, more levels cascade
through an L of the arithmetic's dtype. triton_tiles.py has the tiles.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.conventions import arithmetic_dtype, memory_format_of
from litevae_kernels.haar_dwt2d.reference import level_sizes
from litevae_kernels.haar_dwt2d.triton_tiles import (
    extended,
    lanes_of_runs,
    level_side,
    load_tile,
    of_quarters,
    pixel_values,
    quarters,
    store_tile,
    tile_of_program,
    tile_rows,
)

MAX_FUSED_LEVELS = 4
MAX_LANES = 16
TILE_HEIGHT, TILE_WIDTH = 16, 128  # of the image; so many rows and columns times lanes


@triton.jit
def _butterfly(a, b, c, d, factor):
    """L, H, V, D of a 2x2 block, and the block of L, H, V, D: the matrix is symmetric."""
    return (
        factor * ((a + b) + (c + d)),
        factor * ((a + b) - (c + d)),
        factor * ((a - b) + (c - d)),
        factor * ((a - b) - (c - d)),
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

    TRANSPOSE (the gradient of the inverse): zeros past an odd edge, which pixels past the image's are, and so all that
    is made of them alone; and only the last level's L is handed out. COPY_LOW: the last L, unrounded, also goes to
    `low_copy` [B, C, h, w], from which the next launch goes on.
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
    low, h, v, d = _butterfly(a, b, c, d, factor)
    bands = tl.permute(of_quarters(tl.zeros_like(low) if HIDE_LOW else low, h, v, d), (3, 4, 0, 1, 2))
    bands = tl.reshape(bands, (4, ROWS << FINER, COLUMNS << FINER, LANES))
    store_tile(packed, bands, tile, height, width, ROWS, COLUMNS, FINER, CHANNELS, CHANNELS_LAST)
    if COPY_LOW:
        store_tile(low_copy, low[None], tile, height, width, ROWS, COLUMNS, FINER, CHANNELS, CHANNELS_LAST)
    return low


@triton.jit(do_not_specialize=["tiles", "tiles_w"])
def haar_dwt2d_bwd_kernel(
    level1, level2, level3, level4, low_copy, image, height, width, factor, tiles, tiles_w, LEVELS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr,
    WIDTH_DIVISOR: tl.constexpr, TRANSPOSE: tl.constexpr, FROM_COPY: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """a, b, c, d = factor * (L + H + V + D, L + H - V - D, L - H + V - D, L - H - V + D), from the coarsest level up.

    What lies past an odd edge is dropped. TRANSPOSE (the gradient of the DWT) folds it onto the last row or column
    instead, and adds every level's L. FROM_COPY: the running L comes from a coarser launch's `low_copy` [B, C, h, w].
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
    """[2 rows, 2 columns, LANES] values of the finer level from the running L and one level's tile."""
    LANES: tl.constexpr = low.shape[2]
    bands = load_tile(
        packed, tile, height, width, ROWS, COLUMNS, FINER, 4, 0 if ADD_LOW else 1, LANES, CHANNELS, CHANNELS_LAST
    )  # fmt: skip
    bands = tl.reshape(bands.to(ARITHMETIC), (2, 2, ROWS << FINER, COLUMNS << FINER, LANES))
    level_low, h, v, d = quarters(tl.permute(bands, (2, 3, 4, 0, 1)))
    if ADD_LOW:
        low += level_low
    top_left, top_right, bottom_left, bottom_right = _butterfly(low, h, v, d, factor)
    if FOLD:
        past_column = (2 * ((tile[3] << FINER) + tl.arange(0, COLUMNS << FINER)) + 1 == finer_width)[None, :, None]
        top_left = tl.where(past_column, top_left + top_right, top_left)
        bottom_left = tl.where(past_column, bottom_left + bottom_right, bottom_left)
        past_row = (2 * tile_rows(tile[2], ROWS, FINER) + 1 == finer_height)[:, None, None]
        top_left = tl.where(past_row, top_left + bottom_left, top_left)
        top_right = tl.where(past_row, top_right + bottom_right, top_right)
    blocks = of_quarters(top_left, top_right, bottom_left, bottom_right)
    return tl.reshape(tl.permute(blocks, (3, 0, 1, 4, 2)), (ROWS << FINER + 1, COLUMNS << FINER + 1, LANES))


def analysis(
    image: Tensor, levels: int, factor: float, dtype: torch.dtype, transpose_of_synthesis: bool = False
) -> list[Tensor]:
    """As `reference.analysis`."""
    batch, channels, height, width = image.shape
    memory_format, arithmetic = memory_format_of(image), arithmetic_dtype(image.dtype, dtype)
    sizes = level_sizes(height, width, levels)
    pyramid = [
        torch.empty((batch, 4 * channels, h, w), dtype=dtype, device=image.device, memory_format=memory_format)
        for h, w in sizes[1:]
    ]
    if image.numel() == 0:
        return pyramid
    for done in range(0, levels, MAX_FUSED_LEVELS):
        outputs = pyramid[done : done + MAX_FUSED_LEVELS]
        goes_on = done + len(outputs) < levels
        low = torch.empty(
            (batch, channels, *sizes[done + len(outputs)]) if goes_on else (0, 0, 0, 0),
            dtype=arithmetic,
            device=image.device,
            memory_format=memory_format,
        )
        programs, tile = _tiles(batch, channels, *sizes[done], len(outputs), memory_format, arithmetic)
        odd_height, odd_width = (side % 2 ** len(outputs) != 0 for side in sizes[done])
        with torch.cuda.device_of(image):
            haar_dwt2d_fwd_kernel[(programs,)](
                image, *_four(outputs), low, *image.stride(), *sizes[done], factor, **tile,
                LEVELS=len(outputs), TRANSPOSE=transpose_of_synthesis, COPY_LOW=goes_on,
                EXTEND_ROWS=odd_height and not transpose_of_synthesis,
                EXTEND_COLUMNS=odd_width and not transpose_of_synthesis,
                IMAGE_IN_RUNS=1 < channels <= tile["LANES"] and image.stride(1) == 1 and image.stride(3) == channels,
            )  # fmt: skip
        image = low
    return pyramid


def synthesis(
    pyramid: Sequence[Tensor],
    height: int,
    width: int,
    factor: float,
    dtype: torch.dtype,
    transpose_of_analysis: bool = False,
) -> Tensor:
    """As `reference.synthesis`; levels that are not dense in the finest level's memory format are copied."""
    memory_format, levels = memory_format_of(pyramid[0]), len(pyramid)
    arithmetic = arithmetic_dtype(pyramid[0].dtype, dtype)
    pyramid = [packed.contiguous(memory_format=memory_format) for packed in pyramid]
    batch, channels = pyramid[0].shape[0], pyramid[0].shape[1] // 4
    sizes = level_sizes(height, width, levels)
    low = pyramid[0].new_empty(0, dtype=arithmetic)
    for first in reversed(range(0, levels, MAX_FUSED_LEVELS)):
        inputs = pyramid[first : first + MAX_FUSED_LEVELS]
        result = torch.empty(
            (batch, channels, *sizes[first]),
            dtype=dtype if first == 0 else arithmetic,
            device=low.device,
            memory_format=memory_format,
        )
        if result.numel() > 0:
            programs, tile = _tiles(batch, channels, *sizes[first], len(inputs), memory_format, arithmetic)
            with torch.cuda.device_of(result):
                haar_dwt2d_bwd_kernel[(programs,)](
                    *_four(inputs), low, result, *sizes[first], factor, **tile,
                    LEVELS=len(inputs), TRANSPOSE=transpose_of_analysis, FROM_COPY=first + len(inputs) < levels,
                )  # fmt: skip
        low = result
    return low


_TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


def _four(levels: Sequence[Tensor]) -> list[Tensor]:
    """Kernels take four levels; the places of absent ones are filled and never used."""
    return [*levels, *[levels[-1]] * (MAX_FUSED_LEVELS - len(levels))]


def _tiles(
    batch: int,
    channels: int,
    height: int,
    width: int,
    levels: int,
    memory_format: torch.memory_format,
    arithmetic: torch.dtype,
) -> tuple[int, dict[str, Any]]:
    """How many programs, and what each makes: a tile's rows and columns of the coarsest level, of so many channels.

    The threads are so few that each has 16 bytes of the coarser levels, and so many that its registers do.
    """
    channels_last = memory_format == torch.channels_last
    lanes = min(MAX_LANES, triton.next_power_of_2(channels)) if channels_last else 1
    coarse_height, coarse_width = level_sizes(height, width, levels)[-1]
    rows = min(max(1, TILE_HEIGHT >> levels), triton.next_power_of_2(coarse_height))
    columns = min(max(1, TILE_WIDTH // lanes >> levels), triton.next_power_of_2(coarse_width))
    tiles_w = triton.cdiv(coarse_width, columns)
    tiles = triton.cdiv(coarse_height, rows) * tiles_w
    sizes_of_a_tile = max(1, rows * columns * lanes * 4**levels // (TILE_HEIGHT * TILE_WIDTH))
    return batch * triton.cdiv(channels, lanes) * tiles, {
        "tiles": tiles, "tiles_w": tiles_w, "ROWS": rows, "COLUMNS": columns, "LANES": lanes, "CHANNELS": channels,
        "WIDTH_DIVISOR": math.gcd(width, 16 << levels), "CHANNELS_LAST": channels_last,
        "ARITHMETIC": _TRITON_DTYPES[arithmetic], "num_warps": arithmetic.itemsize // 2 * sizes_of_a_tile,
    }  # fmt: skip
