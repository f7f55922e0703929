"""The CUDA C++ backend of the Haar DWT: launches the kernels of csrc/haar_dwt2d/cuda.cu.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from collections.abc import Sequence
from ctypes import c_double, c_int32, c_int64

import torch
from torch import Tensor

from litevae_kernels import nvrtc
from litevae_kernels.formats import arithmetic_dtype
from litevae_kernels.haar_dwt2d import cascade
from litevae_kernels.haar_dwt2d.geometry import level_sizes

STRIP_THREADS, TILE_THREADS = 128, 256  # kStripThreads of cuda_strips.h, kTileThreads of cuda_tiles.h


def analysis(
    image: Tensor,
    levels: int,
    factor: float,
    dtype: torch.dtype,
    transpose: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> list[Tensor]:
    """As `reference.analysis`; for an image of any strides, without a copy."""

    def launch(
        image: Tensor, outputs: Sequence[Tensor], low: Tensor | None, memory_format: torch.memory_format
    ) -> None:
        tensors = [image, *cascade.four(outputs), low]
        _launch("fwd", tensors, image, image.stride(), outputs, memory_format, factor, transpose)

    return cascade.analysis(launch, image, levels, dtype, memory_format)


def synthesis(
    pyramid: Sequence[Tensor], height: int, width: int, factor: float, dtype: torch.dtype, transpose: bool = False
) -> Tensor:
    """As `reference.synthesis`; levels that are not dense in the finest level's memory format are copied."""

    def launch(image: Tensor, inputs: Sequence[Tensor], low: Tensor | None, memory_format: torch.memory_format) -> None:
        tensors = [*cascade.four(inputs), low, image]
        _launch("bwd", tensors, image, (), inputs, memory_format, factor, transpose)

    return cascade.synthesis(launch, pyramid, height, width, dtype)


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
        arguments = [*tensors, *map(c_int64, strides), *sides, *map(c_int32, tiles), *options]
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
    """Tiles of at most `values` (kTileValues) that cover the coarsest level and the channels, and the number of blocks.

    In the order of the kernels' parameters: columns of a tile, tiles in a row, channels of a tile, tiles that share the
    channels of a pixel.
    """
    coarse_height, coarse_width = level_sizes(height, width, levels)[-1]
    pixels = 4**levels  # of the image, for each value of the coarsest level
    tile_channels = min(channels, values // pixels)
    columns = min(coarse_width, values // pixels // tile_channels)
    columns -= columns % min(16, 1 << (columns.bit_length() - 1))  # so that most tiles start at a multiple of 16 bytes
    tiles_in_a_row, parts = -(-coarse_width // columns), -(-channels // tile_channels)
    return (columns, tiles_in_a_row, tile_channels, parts), batch * coarse_height * tiles_in_a_row * parts
