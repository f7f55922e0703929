"""How does a GPU compute the multi-level Haar transform and its inverse? Triton kernels and their launchers.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

One program makes a tile of the coarsest level of its launch, and so 2^LEVELS times as many rows and columns of the
image; the levels between stay in registers. One launch covers up to MAX_FUSED_LEVELS levels, more levels cascade
through an L of the arithmetic's dtype. All offsets are 64-bit.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.conventions import arithmetic_dtype, memory_format_of
from litevae_kernels.haar_dwt2d.reference import level_sizes
from litevae_kernels.triton_rounding import rounded

MAX_FUSED_LEVELS = 4
TILE_HEIGHT, TILE_WIDTH = 16, 128  # of the image


@triton.jit
def _side(image_side, LEVEL: tl.constexpr):
    """ceil(image_side / 2^LEVEL): a level's side, because rounding up at every level is rounding up once."""
    return (image_side + ((1 << LEVEL) - 1)) >> LEVEL


@triton.jit
def _extended_positions(first, COUNT: tl.constexpr, LEVELS: tl.constexpr, image_side):
    """Rows (or columns) of the image that make up a tile, with symmetric extension at every level.

    A position past the end of any level becomes that level's last one, from the coarsest level down.
    """
    i = tl.arange(0, COUNT << LEVELS)
    position = first + (i >> LEVELS)
    for k in tl.static_range(LEVELS):
        inside = _side(image_side, LEVELS - 1 - k)
        position = tl.minimum(2 * position + ((i >> (LEVELS - 1 - k)) & 1), inside - 1)
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
def _dense_offsets(sample, channel, channels, rows, columns, height, width, CHANNELS_LAST: tl.constexpr):
    if CHANNELS_LAST:
        return ((sample * height + rows[:, None]) * width + columns[None, :]) * channels + channel
    else:
        return ((sample * channels + channel) * height + rows[:, None]) * width + columns[None, :]


@triton.jit
def _split_blocks(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[2 ROWS, 2 COLUMNS] -> the corners a, b, c, d of its 2x2 blocks, each [ROWS, COLUMNS]."""
    left, right = tl.split(tl.reshape(x, (2 * ROWS, COLUMNS, 2)))
    a, c = tl.split(tl.permute(tl.reshape(left, (ROWS, 2, COLUMNS)), (0, 2, 1)))
    b, d = tl.split(tl.permute(tl.reshape(right, (ROWS, 2, COLUMNS)), (0, 2, 1)))
    return a, b, c, d


@triton.jit
def _join_blocks(a, b, c, d, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The inverse of `_split_blocks`."""
    left = tl.reshape(tl.permute(tl.join(a, c), (0, 2, 1)), (2 * ROWS, COLUMNS))
    right = tl.reshape(tl.permute(tl.join(b, d), (0, 2, 1)), (2 * ROWS, COLUMNS))
    return tl.reshape(tl.join(left, right), (2 * ROWS, 2 * COLUMNS))


@triton.jit
def haar_dwt2d_fwd_kernel(
    image, level1, level2, level3, level4, low_copy, stride_b, stride_c, stride_h, stride_w, channels, height, width,
    factor, tiles, tiles_w, LEVELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TRANSPOSE: tl.constexpr,
    COPY_LOW: tl.constexpr, CHANNELS_LAST: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """L, H, V, D = factor * (a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d) of each 2x2 block; L recurses.

    TRANSPOSE (the gradient of the inverse): zeros past an odd edge, and only the last level's L is handed out.
    COPY_LOW: the last L, unrounded, also goes to `low_copy` [B, C, h, w], from which the next launch goes on.
    """
    program = tl.program_id(0).to(tl.int64)
    plane, tile = program // tiles, program % tiles
    sample, channel = plane // channels, plane % channels
    first_row, first_column = tile // tiles_w * ROWS, tile % tiles_w * COLUMNS
    rows = (first_row << LEVELS) + tl.arange(0, ROWS << LEVELS)
    columns = (first_column << LEVELS) + tl.arange(0, COLUMNS << LEVELS)
    image += sample * stride_b + channel * stride_c
    inside = ((first_row + ROWS) << LEVELS <= height) & ((first_column + COLUMNS) << LEVELS <= width)
    if inside:
        low = _values(tl.load(image + rows[:, None] * stride_h + columns[None, :] * stride_w), ARITHMETIC)
    elif TRANSPOSE:
        mask = (rows < height)[:, None] & (columns < width)[None, :]
        low = tl.load(image + rows[:, None] * stride_h + columns[None, :] * stride_w, mask=mask, other=0).to(ARITHMETIC)
    else:
        edge_rows = _extended_positions(first_row, ROWS, LEVELS, height)
        edge_columns = _extended_positions(first_column, COLUMNS, LEVELS, width)
        low = _values(tl.load(image + edge_rows[:, None] * stride_h + edge_columns[None, :] * stride_w), ARITHMETIC)

    for k in tl.static_range(LEVELS):
        low = _analyse_level(
            low, level1 if k == 0 else (level2 if k == 1 else (level3 if k == 2 else level4)), low_copy,
            sample, channel, channels, first_row << (LEVELS - 1 - k), first_column << (LEVELS - 1 - k),
            _side(height, k + 1), _side(width, k + 1), factor,
            ROWS << (LEVELS - 1 - k), COLUMNS << (LEVELS - 1 - k), TRANSPOSE,
            TRANSPOSE and (k < LEVELS - 1 or COPY_LOW), COPY_LOW and k == LEVELS - 1, CHANNELS_LAST,
        )  # fmt: skip


@triton.jit
def _analyse_level(
    image, packed, low_copy, sample, channel, channels, first_row, first_column, height, width, factor,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ZERO_EDGE: tl.constexpr, HIDE_LOW: tl.constexpr,
    COPY_LOW: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Stores one level's tile [ROWS, COLUMNS] of L H V D from [2 ROWS, 2 COLUMNS] values, and returns L."""
    a, b, c, d = _split_blocks(image, ROWS, COLUMNS)
    rows, columns = first_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
    mask = (rows < height)[:, None] & (columns < width)[None, :]
    low = factor * ((a + b) + (c + d))
    if ZERO_EDGE:
        low = tl.where(mask, low, 0.0)
    bands = (
        tl.zeros_like(low) if HIDE_LOW else low,
        factor * ((a + b) - (c + d)),
        factor * ((a - b) + (c - d)),
        factor * ((a - b) - (c - d)),
    )
    for band in tl.static_range(4):
        offsets = _dense_offsets(
            sample, band * channels + channel, 4 * channels, rows, columns, height, width, CHANNELS_LAST
        )  # fmt: skip
        tl.store(packed + offsets, rounded(bands[band], packed.dtype.element_ty), mask=mask)
    if COPY_LOW:
        offsets = _dense_offsets(sample, channel, channels, rows, columns, height, width, False)
        tl.store(low_copy + offsets, low, mask=mask)
    return low


@triton.jit
def haar_dwt2d_bwd_kernel(
    level1, level2, level3, level4, low_copy, image, channels, height, width, factor, tiles, tiles_w,
    LEVELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TRANSPOSE: tl.constexpr, FROM_COPY: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, IMAGE_CHANNELS_LAST: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """a, b, c, d = factor * (L + H + V + D, L + H - V - D, L - H + V - D, L - H - V + D), from the coarsest level up.

    What lies past an odd edge is dropped. TRANSPOSE (the gradient of the DWT) folds it onto the last row or column
    instead, and adds every level's L. FROM_COPY: the running L comes from a coarser launch's `low_copy` [B, C, h, w].
    """
    program = tl.program_id(0).to(tl.int64)
    plane, tile = program // tiles, program % tiles
    sample, channel = plane // channels, plane % channels
    first_row, first_column = tile // tiles_w * ROWS, tile % tiles_w * COLUMNS
    low = tl.zeros((ROWS, COLUMNS), dtype=ARITHMETIC)
    if FROM_COPY:
        rows, columns = first_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
        low_height, low_width = _side(height, LEVELS), _side(width, LEVELS)
        mask = (rows < low_height)[:, None] & (columns < low_width)[None, :]
        low = tl.load(
            low_copy + _dense_offsets(sample, channel, channels, rows, columns, low_height, low_width, False),
            mask=mask, other=0,
        )  # fmt: skip
    for k in tl.static_range(LEVELS):
        low = _synthesise_level(
            low,
            level1 if LEVELS - k == 1 else (level2 if LEVELS - k == 2 else (level3 if LEVELS - k == 3 else level4)),
            sample, channel, channels, first_row << k, first_column << k, _side(height, LEVELS - k),
            _side(width, LEVELS - k), _side(height, LEVELS - k - 1), _side(width, LEVELS - k - 1), factor,
            ROWS << k, COLUMNS << k, TRANSPOSE or (k == 0 and not FROM_COPY), TRANSPOSE, CHANNELS_LAST, ARITHMETIC,
        )  # fmt: skip
    rows = (first_row << LEVELS) + tl.arange(0, ROWS << LEVELS)
    columns = (first_column << LEVELS) + tl.arange(0, COLUMNS << LEVELS)
    mask = (rows < height)[:, None] & (columns < width)[None, :]
    offsets = _dense_offsets(sample, channel, channels, rows, columns, height, width, IMAGE_CHANNELS_LAST)
    tl.store(image + offsets, rounded(low, image.dtype.element_ty), mask=mask)


@triton.jit
def _synthesise_level(
    low, packed, sample, channel, channels, first_row, first_column, height, width, finer_height, finer_width, factor,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ADD_LOW: tl.constexpr, FOLD: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """[2 ROWS, 2 COLUMNS] values of the finer level from the running L and one level's tile [ROWS, COLUMNS]."""
    rows, columns = first_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
    mask = (rows < height)[:, None] & (columns < width)[None, :]
    packed += _dense_offsets(sample, channel, 4 * channels, rows, columns, height, width, CHANNELS_LAST)
    band = tl.full((), 1, tl.int64) * channels  # from one sub-band to the next
    if not CHANNELS_LAST:
        band = band * height * width
    if ADD_LOW:
        low += tl.load(packed, mask=mask, other=0).to(ARITHMETIC)
    h = tl.load(packed + band, mask=mask, other=0).to(ARITHMETIC)
    v = tl.load(packed + 2 * band, mask=mask, other=0).to(ARITHMETIC)
    d = tl.load(packed + 3 * band, mask=mask, other=0).to(ARITHMETIC)
    top_left, top_right = factor * ((low + h) + (v + d)), factor * ((low + h) - (v + d))
    bottom_left, bottom_right = factor * ((low - h) + (v - d)), factor * ((low - h) - (v - d))
    if FOLD:
        past_column = (2 * columns + 1 == finer_width)[None, :]
        top_left = tl.where(past_column, top_left + top_right, top_left)
        bottom_left = tl.where(past_column, bottom_left + bottom_right, bottom_left)
        past_row = (2 * rows + 1 == finer_height)[:, None]
        top_left = tl.where(past_row, top_left + bottom_left, top_left)
        top_right = tl.where(past_row, top_right + bottom_right, top_right)
    return _join_blocks(top_left, top_right, bottom_left, bottom_right, ROWS, COLUMNS)


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
        low = image.new_empty((batch, channels, *sizes[done + len(outputs)]) if goes_on else (0,), dtype=arithmetic)
        tile = _tile(*sizes[done], len(outputs))
        with torch.cuda.device_of(image):
            haar_dwt2d_fwd_kernel[(batch * channels * tile["tiles"],)](
                image, *_four(outputs), low, *image.stride(), channels, *sizes[done], factor, **tile,
                LEVELS=len(outputs), TRANSPOSE=transpose_of_synthesis, COPY_LOW=goes_on,
                CHANNELS_LAST=memory_format == torch.channels_last, ARITHMETIC=_TRITON_DTYPES[arithmetic],
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
    channels_last = memory_format == torch.channels_last
    sizes = level_sizes(height, width, levels)
    low = pyramid[0].new_empty(0, dtype=arithmetic)
    for first in reversed(range(0, levels, MAX_FUSED_LEVELS)):
        inputs = pyramid[first : first + MAX_FUSED_LEVELS]
        last_launch = first == 0
        result = torch.empty(
            (batch, channels, *sizes[first]),
            dtype=dtype if last_launch else arithmetic,
            device=low.device,
            memory_format=memory_format if last_launch else torch.contiguous_format,
        )
        if result.numel() == 0:
            return result
        tile = _tile(*sizes[first], len(inputs))
        with torch.cuda.device_of(result):
            haar_dwt2d_bwd_kernel[(batch * channels * tile["tiles"],)](
                *_four(inputs), low, result, channels, *sizes[first], factor, **tile,
                LEVELS=len(inputs), TRANSPOSE=transpose_of_analysis, FROM_COPY=first + len(inputs) < levels,
                CHANNELS_LAST=channels_last, IMAGE_CHANNELS_LAST=channels_last and last_launch,
                ARITHMETIC=_TRITON_DTYPES[arithmetic],
            )  # fmt: skip
        low = result
    return low


_TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


def _four(levels: Sequence[Tensor]) -> list[Tensor]:
    """Kernels take four levels; the places of absent ones are filled and never used."""
    return [*levels, *[levels[-1]] * (MAX_FUSED_LEVELS - len(levels))]


def _tile(height: int, width: int, levels: int) -> dict[str, int]:
    """Size of a tile in rows and columns of the coarsest level, and how many tiles cover one plane."""
    coarse_height, coarse_width = level_sizes(height, width, levels)[-1]
    rows = min(max(1, TILE_HEIGHT >> levels), triton.next_power_of_2(coarse_height))
    columns = min(max(1, TILE_WIDTH >> levels), triton.next_power_of_2(coarse_width))
    tiles_w = triton.cdiv(coarse_width, columns)
    return {"ROWS": rows, "COLUMNS": columns, "tiles": triton.cdiv(coarse_height, rows) * tiles_w, "tiles_w": tiles_w}
