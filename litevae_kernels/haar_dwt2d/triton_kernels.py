"""How does a GPU compute the multi-level Haar transform and its inverse? Triton kernels and their launchers.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

One program makes a tile of the coarsest level of its launch, and so 2^LEVELS times as many rows and columns of the
image; the levels between stay in registers. One launch covers up to MAX_FUSED_LEVELS levels, more levels cascade
through an L of the arithmetic's dtype. All offsets are 64-bit.

A tile is [ROWS, COLUMNS, LANES]. Lanes are channels: one in NCHW, up to MAX_LANES in channels_last. Where these are all
channels, a row of the tile is one run of memory: it is read and written as such, 16 bytes a thread where it is aligned,
and goes between the memory's order and the tile's in shared memory. Every channel count compiles a kernel of its own.
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
from litevae_kernels.triton_rounding import rounded

MAX_FUSED_LEVELS = 4
MAX_LANES = 16
TILE_HEIGHT, TILE_WIDTH = 16, 128  # of the image; so many rows and columns times lanes


@triton.jit
def _side(image_side, LEVEL: tl.constexpr, DIVISOR: tl.constexpr):
    """ceil(image_side / 2^LEVEL): a level's side, because rounding up at every level is rounding up once.

    From DIVISOR, a power of two that divides the image's side, the compiler learns that rows start aligned.
    """
    side = (image_side + ((1 << LEVEL) - 1)) >> LEVEL
    if (DIVISOR >> LEVEL) > 1:
        side = tl.multiple_of(side, DIVISOR >> LEVEL)
    return side


@triton.jit
def _tile_rows(first, COUNT: tl.constexpr, FINER: tl.constexpr):
    """The rows that COUNT rows of the coarsest level, from `first` on, have FINER levels below, in a tile's order.

    First all even rows, then all odd ones, and either half again so: pairs are far apart, and a thread holds both.
    """
    i = tl.arange(0, COUNT << FINER)
    row = first + i % COUNT
    for k in tl.static_range(FINER):
        row = 2 * row + ((i // COUNT) >> k & 1)
    return row


@triton.jit
def _extended(positions, LEVELS: tl.constexpr, image_side):
    """Rows or columns past the image's end become those that symmetric extension at every level repeats.

    A position past the end of any level becomes that level's last one, from the coarsest level down.
    """
    position = positions >> LEVELS
    for k in tl.static_range(LEVELS):
        inside = _side(image_side, LEVELS - 1 - k, 1)
        position = tl.minimum(2 * position + ((positions >> (LEVELS - 1 - k)) & 1), inside - 1)
    return position


@triton.jit
def _values(pixels, ARITHMETIC: tl.constexpr):
    """A pixel of 8 bits stands for p / 127.5 - 1, with the division that PyTorch has."""
    if pixels.dtype == tl.uint8:
        if ARITHMETIC == tl.float64:
            return pixels.to(tl.float64) / 127.5 - 1.0
        else:
            return tl.div_rn(pixels.to(tl.float32), 127.5) - 1.0
    else:
        return pixels.to(ARITHMETIC)


@triton.jit
def _quarters(x):
    """[..., 2, 2] -> x[..., 0, 0], x[..., 0, 1], x[..., 1, 0], x[..., 1, 1]."""
    left, right = tl.split(x)
    a, c = tl.split(left)
    b, d = tl.split(right)
    return a, b, c, d


@triton.jit
def _of_quarters(a, b, c, d):
    """The inverse of `_quarters`."""
    return tl.join(tl.join(a, c), tl.join(b, d))


@triton.jit
def _butterfly(a, b, c, d, factor):
    """L, H, V, D of a 2x2 block, and the block of L, H, V, D: the matrix is symmetric."""
    return (
        factor * ((a + b) + (c + d)),
        factor * ((a + b) - (c + d)),
        factor * ((a - b) + (c - d)),
        factor * ((a - b) - (c - d)),
    )


@triton.jit
def _lanes_of_runs(x, BANDS: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr):
    """Runs of memory [ROWS, COLUMNS * BANDS * LANES] -> [BANDS, ROWS, COLUMNS, LANES]; surplus lanes hold anything.

    A run has BANDS * CHANNELS elements a pixel, and then surplus. The gather is over all at once: within a warp Triton
    would shuffle every element past every other, across warps it goes through shared memory once.
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
    """The inverse of `_lanes_of_runs`."""
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

    [BANDS, ROWS, COLUMNS, LANES], but [ROWS, COLUMNS * BANDS * LANES] where a row of the tile is one run of memory.
    """
    sample, group, first_row, first_column = tile
    rows, first_column = _tile_rows(first_row, ROWS, FINER), first_column << FINER
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
def _load_tile(
    tensor, tile, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, FINER: tl.constexpr, BANDS: tl.constexpr,
    FIRST_BAND: tl.constexpr, LANES: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """[BANDS, ROWS, COLUMNS, LANES]. Bands before the first may be read, and are nothing to go by."""
    pointers, mask = _places(
        tensor, tile, height, width, ROWS, COLUMNS, FINER, BANDS, FIRST_BAND, LANES, CHANNELS, CHANNELS_LAST
    )  # fmt: skip
    x = tl.load(pointers, mask=mask, other=0)
    if CHANNELS_LAST and CHANNELS <= LANES:
        x = _lanes_of_runs(x, BANDS, COLUMNS << FINER, LANES, CHANNELS)
    return x


@triton.jit
def _store_tile(
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
def _tile_of_program(tiles, tiles_w, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUPS: tl.constexpr):
    """Sample, group of channels, first row and first column of the coarsest level."""
    program = tl.program_id(0).to(tl.int64)
    plane, tile = program // tiles, program % tiles
    return plane // GROUPS, plane % GROUPS, tile // tiles_w * ROWS, tile % tiles_w * COLUMNS


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
    tile = _tile_of_program(tiles, tiles_w, ROWS, COLUMNS, tl.cdiv(CHANNELS, LANES))
    sample, group, first_row, first_column = tile
    rows = _tile_rows(first_row, ROWS, LEVELS)
    if EXTEND_ROWS:
        rows = _extended(rows, LEVELS, height)
    first_column = first_column << LEVELS
    image += sample * stride_b
    if IMAGE_IN_RUNS and not EXTEND_COLUMNS:
        i = tl.arange(0, (COLUMNS << LEVELS) * LANES)[None, :]
        mask = (rows < height)[:, None] & (i < (width - first_column) * CHANNELS) & (i < (COLUMNS << LEVELS) * CHANNELS)
        low = tl.load(image + rows[:, None] * stride_h + first_column * CHANNELS + i, mask=mask, other=0)
        low = _values(_lanes_of_runs(low, 1, COLUMNS << LEVELS, LANES, CHANNELS), ARITHMETIC)
        low = tl.reshape(low, (ROWS << LEVELS, COLUMNS << LEVELS, LANES))
    else:
        columns = first_column + tl.arange(0, COLUMNS << LEVELS)
        if EXTEND_COLUMNS:
            columns = _extended(columns, LEVELS, width)
        channels = group * LANES + tl.arange(0, LANES)
        rows, columns, channels = rows[:, None, None], columns[None, :, None], channels[None, None, :]
        mask = (rows < height) & (columns < width) & (channels < CHANNELS)
        pixels = image + rows * stride_h + columns * stride_w + channels * stride_c
        low = _values(tl.load(pixels, mask=mask, other=0), ARITHMETIC)
    for k in tl.static_range(LEVELS):
        low = _analyse_level(
            low, level1 if k == 0 else (level2 if k == 1 else (level3 if k == 2 else level4)), low_copy, tile,
            _side(height, k + 1, 1), _side(width, k + 1, WIDTH_DIVISOR), factor, ROWS, COLUMNS, LEVELS - 1 - k,
            TRANSPOSE and (k < LEVELS - 1 or COPY_LOW), COPY_LOW and k == LEVELS - 1,
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
    a, b, c, d = _quarters(blocks)
    low, h, v, d = _butterfly(a, b, c, d, factor)
    bands = tl.permute(_of_quarters(tl.zeros_like(low) if HIDE_LOW else low, h, v, d), (3, 4, 0, 1, 2))
    bands = tl.reshape(bands, (4, ROWS << FINER, COLUMNS << FINER, LANES))
    _store_tile(packed, bands, tile, height, width, ROWS, COLUMNS, FINER, CHANNELS, CHANNELS_LAST)
    if COPY_LOW:
        _store_tile(low_copy, low[None], tile, height, width, ROWS, COLUMNS, FINER, CHANNELS, CHANNELS_LAST)
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
    tile = _tile_of_program(tiles, tiles_w, ROWS, COLUMNS, tl.cdiv(CHANNELS, LANES))
    low = tl.zeros((ROWS, COLUMNS, LANES), dtype=ARITHMETIC)
    if FROM_COPY:
        low = _load_tile(
            low_copy, tile, _side(height, LEVELS, 1), _side(width, LEVELS, WIDTH_DIVISOR),
            ROWS, COLUMNS, 0, 1, 0, LANES, CHANNELS, CHANNELS_LAST,
        )  # fmt: skip
        low = tl.reshape(low, (ROWS, COLUMNS, LANES))
    for k in tl.static_range(LEVELS):
        low = _synthesise_level(
            low,
            level1 if LEVELS - k == 1 else (level2 if LEVELS - k == 2 else (level3 if LEVELS - k == 3 else level4)),
            tile, _side(height, LEVELS - k, 1), _side(width, LEVELS - k, WIDTH_DIVISOR),
            _side(height, LEVELS - k - 1, 1), _side(width, LEVELS - k - 1, 1), factor, ROWS, COLUMNS, k,
            TRANSPOSE or (k == 0 and not FROM_COPY), TRANSPOSE, CHANNELS, CHANNELS_LAST, ARITHMETIC,
        )  # fmt: skip
    _store_tile(image, low[None], tile, height, width, ROWS, COLUMNS, LEVELS, CHANNELS, CHANNELS_LAST)


@triton.jit
def _synthesise_level(
    low, packed, tile, height, width, finer_height, finer_width, factor, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FINER: tl.constexpr, ADD_LOW: tl.constexpr, FOLD: tl.constexpr, CHANNELS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """[2 rows, 2 columns, LANES] values of the finer level from the running L and one level's tile."""
    LANES: tl.constexpr = low.shape[2]
    bands = _load_tile(
        packed, tile, height, width, ROWS, COLUMNS, FINER, 4, 0 if ADD_LOW else 1, LANES, CHANNELS, CHANNELS_LAST
    )  # fmt: skip
    bands = tl.reshape(bands.to(ARITHMETIC), (2, 2, ROWS << FINER, COLUMNS << FINER, LANES))
    level_low, h, v, d = _quarters(tl.permute(bands, (2, 3, 4, 0, 1)))
    if ADD_LOW:
        low += level_low
    top_left, top_right, bottom_left, bottom_right = _butterfly(low, h, v, d, factor)
    if FOLD:
        past_column = (2 * ((tile[3] << FINER) + tl.arange(0, COLUMNS << FINER)) + 1 == finer_width)[None, :, None]
        top_left = tl.where(past_column, top_left + top_right, top_left)
        bottom_left = tl.where(past_column, bottom_left + bottom_right, bottom_left)
        past_row = (2 * _tile_rows(tile[2], ROWS, FINER) + 1 == finer_height)[:, None, None]
        top_left = tl.where(past_row, top_left + bottom_left, top_left)
        top_right = tl.where(past_row, top_right + bottom_right, top_right)
    blocks = _of_quarters(top_left, top_right, bottom_left, bottom_right)
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
