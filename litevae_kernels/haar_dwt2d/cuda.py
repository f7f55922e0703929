"""How does the Haar DWT reach csrc/haar_dwt2d/cuda.cu? Allocates the results and launches its kernels.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

One launch covers up to MAX_FUSED_LEVELS levels, more levels cascade through an L of the arithmetic's dtype.
"""

from collections.abc import Sequence
from ctypes import c_double, c_int32, c_int64

import torch
from torch import Tensor

from litevae_kernels import nvrtc
from litevae_kernels.conventions import arithmetic_dtype, memory_format_of
from litevae_kernels.haar_dwt2d.reference import level_sizes

MAX_FUSED_LEVELS = 4
STRIP_THREADS, TILE_THREADS = 128, 256  # kStripThreads of cuda_strips.h, kTileThreads of cuda_tiles.h


def analysis(
    image: Tensor, levels: int, factor: float, dtype: torch.dtype, transpose_of_synthesis: bool = False
) -> list[Tensor]:
    """As `reference.analysis`; the image's strides are read as they are."""
    batch, channels, height, width = image.shape
    memory_format, arithmetic = memory_format_of(image), arithmetic_dtype(image.dtype, dtype)
    sizes = level_sizes(height, width, levels)

    def empty(channels: int, level: int, dtype: torch.dtype) -> Tensor:
        shape = (batch, channels, *sizes[level])
        return torch.empty(shape, dtype=dtype, device=image.device, memory_format=memory_format)

    pyramid = [empty(4 * channels, level, dtype) for level in range(1, levels + 1)]
    if image.numel() == 0:
        return pyramid
    for done in range(0, levels, MAX_FUSED_LEVELS):
        outputs = pyramid[done : done + MAX_FUSED_LEVELS]
        finished = done + len(outputs) == levels
        low = None if finished else empty(channels, done + len(outputs), arithmetic)
        tensors = [image, *_four(outputs), low]
        _launch("fwd", tensors, image, image.stride(), outputs, memory_format, factor, transpose_of_synthesis)
        image = image if low is None else low
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
    low = None
    for first in reversed(range(0, levels, MAX_FUSED_LEVELS)):
        inputs = pyramid[first : first + MAX_FUSED_LEVELS]
        image = torch.empty(
            (batch, channels, *sizes[first]),
            dtype=dtype if first == 0 else arithmetic,
            device=pyramid[0].device,
            memory_format=memory_format,
        )
        if image.numel() > 0:
            tensors = [*_four(inputs), low, image]
            _launch("bwd", tensors, image, (), inputs, memory_format, factor, transpose_of_analysis)
        low = image
    return image


def _four(levels: Sequence[Tensor]) -> list[Tensor | None]:
    """Kernels take four levels, of which they use as many as they were compiled for."""
    return [*levels, *[None] * (MAX_FUSED_LEVELS - len(levels))]


def _launch(
    direction: str,
    tensors: Sequence[Tensor | None],
    image: Tensor,
    strides: Sequence[int],
    packed: Sequence[Tensor],
    memory_format: torch.memory_format,
    factor: float,
    transpose: bool,
) -> None:
    batch, channels, height, width = image.shape
    types = f"{nvrtc.CXX_TYPES[image.dtype]}, {nvrtc.CXX_TYPES[packed[0].dtype]}, {len(packed)}"
    options = (c_double(factor), c_int32(transpose))
    sides = (c_int64(channels), c_int64(height), c_int64(width))
    if memory_format == torch.channels_last:
        kernel = f"litevae::haar_dwt2d_{direction}_channels_last_kernel<{types}>"
        in_double = arithmetic_dtype(image.dtype, packed[0].dtype) == torch.float64
        tiles, blocks = _tiles(batch, channels, height, width, len(packed), 2048 if in_double else 4096)
        arguments = [*tensors, *sides, *map(c_int32, tiles), *options]
        nvrtc.launch("haar_dwt2d", kernel, (blocks, 1, 1), TILE_THREADS, arguments, image.device)
    else:
        kernel = f"litevae::haar_dwt2d_{direction}_kernel<{types}>"
        blocks = _strip_blocks(batch * channels, height, width, len(packed), 4 if image.element_size() >= 4 else 8)
        arguments = [*tensors, *map(c_int64, strides), c_int64(batch), *sides, *options]
        nvrtc.launch("haar_dwt2d", kernel, (blocks, 1, 1), STRIP_THREADS, arguments, image.device)


def _strip_blocks(planes: int, height: int, width: int, levels: int, columns: int) -> int:
    """Blocks for strips of 2^levels rows by `columns` (kStripColumns) that cover the coarsest level."""
    side = 1 << levels
    strips_in_a_row = -(-(-(-width // side) * side) // columns)
    return -(-planes * -(-height // side) * strips_in_a_row // STRIP_THREADS)


def _tiles(
    batch: int, channels: int, height: int, width: int, levels: int, values: int
) -> tuple[tuple[int, int, int, int], int]:
    """How tiles of at most `values` (kTileValues) cover the coarsest level and the channels, and in how many blocks.

    In the order of the kernels' parameters: columns of a tile, tiles in a row, channels of a tile, tiles side by side.
    """
    coarse_height, coarse_width = level_sizes(height, width, levels)[-1]
    pixels = 4**levels  # of the image, under one of the coarsest level
    tile_channels = min(channels, values // pixels)
    columns = min(coarse_width, values // pixels // tile_channels)
    columns -= columns % min(16, 1 << (columns.bit_length() - 1))  # so that most tiles start at a multiple of 16 bytes
    tiles_in_a_row, parts = -(-coarse_width // columns), -(-channels // tile_channels)
    return (columns, tiles_in_a_row, tile_channels, parts), batch * coarse_height * tiles_in_a_row * parts
