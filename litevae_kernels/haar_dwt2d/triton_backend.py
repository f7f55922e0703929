"""The Triton backend of the Haar DWT: sizes of tiles, numbers of programs, and the launches, which are kept.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.devices import on_device
from litevae_kernels.formats import arithmetic_dtype
from litevae_kernels.haar_dwt2d import cascade
from litevae_kernels.haar_dwt2d.geometry import level_sizes
from litevae_kernels.haar_dwt2d.triton_backward import haar_dwt2d_bwd_kernel
from litevae_kernels.haar_dwt2d.triton_forward import haar_dwt2d_fwd_kernel
from litevae_kernels.haar_dwt2d.triton_tiles import Tile
from litevae_kernels.triton_launch import Launch

MAX_LANES = 16
TILE_HEIGHT, TILE_WIDTH = 16, 128  # rows of the image, and columns times lanes
_TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


class Kind(NamedTuple):
    """All that a launch depends on but the direction: it is kept by it."""

    shape: torch.Size  # of the image
    strides: tuple[int, ...]
    levels: int
    has_low: bool  # L of the coarsest level is a tensor of its own
    factor: float
    transpose: bool
    memory_format: torch.memory_format  # of the levels
    dtypes: tuple[torch.dtype, ...]  # of the image and the levels
    arithmetic: torch.dtype
    device: int


def analysis(
    image: Tensor,
    levels: int,
    factor: float,
    dtype: torch.dtype,
    transpose: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> list[Tensor]:
    """As `reference.analysis`; for an image of any strides, without a copy."""
    arithmetic = arithmetic_dtype(image.dtype, dtype)

    def launch(
        image: Tensor, outputs: Sequence[Tensor], low: Tensor | None, memory_format: torch.memory_format
    ) -> None:
        kind = _kind_of(image, outputs, low, factor, transpose, memory_format, arithmetic)
        with on_device(kind.device):
            _forward_launch(kind)(image, *cascade.four(outputs), low)

    return cascade.analysis(launch, image, levels, dtype, memory_format)


def synthesis(
    pyramid: Sequence[Tensor], height: int, width: int, factor: float, dtype: torch.dtype, transpose: bool = False
) -> Tensor:
    """As `reference.synthesis`; levels that are not dense in the finest level's memory format are copied."""
    arithmetic = arithmetic_dtype(pyramid[0].dtype, dtype)

    def launch(image: Tensor, inputs: Sequence[Tensor], low: Tensor | None, memory_format: torch.memory_format) -> None:
        kind = _kind_of(image, inputs, low, factor, transpose, memory_format, arithmetic)
        with on_device(kind.device):
            _backward_launch(kind)(*cascade.four(inputs), low, image)

    return cascade.synthesis(launch, pyramid, height, width, dtype)


def _kind_of(
    image: Tensor,
    levels: Sequence[Tensor],
    low: Tensor | None,
    factor: float,
    transpose: bool,
    memory_format: torch.memory_format,
    arithmetic: torch.dtype,
) -> Kind:
    dtypes = image.dtype, levels[0].dtype
    return Kind(
        image.shape,
        image.stride(),
        len(levels),
        low is not None,
        factor,
        transpose,
        memory_format,
        dtypes,
        arithmetic,
        image.get_device(),
    )


@functools.lru_cache(maxsize=1024)
def _forward_launch(kind: Kind) -> Launch:
    """haar_dwt2d_fwd_kernel(image, level1, level2, level3, level4, low_copy)."""
    programs, tiles, constants, num_warps = _geometry(kind)
    _, channels, height, width = kind.shape
    constants |= {
        "TRANSPOSE": kind.transpose,
        "COPY_LOW": kind.has_low,
        "EXTEND_ROWS": not kind.transpose and height % 2**kind.levels != 0,
        "EXTEND_COLUMNS": not kind.transpose and width % 2**kind.levels != 0,
        "IMAGE_IN_RUNS": constants["TILE"].runs and kind.strides[1] == 1 and kind.strides[3] == channels,
    }
    numbers = *kind.strides, height, width, kind.factor, *tiles
    return Launch(haar_dwt2d_fwd_kernel, programs, numbers, constants, num_warps)


@functools.lru_cache(maxsize=1024)
def _backward_launch(kind: Kind) -> Launch:
    """haar_dwt2d_bwd_kernel(level1, level2, level3, level4, low_copy, image)."""
    programs, tiles, constants, num_warps = _geometry(kind)
    constants |= {"TRANSPOSE": kind.transpose, "FROM_COPY": kind.has_low}
    numbers = *kind.shape[2:], kind.factor, *tiles
    return Launch(haar_dwt2d_bwd_kernel, programs, numbers, constants, num_warps)


def _geometry(kind: Kind) -> tuple[int, tuple[int, int], dict[str, Any], int]:
    """The number of programs, the numbers of tiles (of a sample's group of channels, side by side), the constants that
    say which tile each program has, and its warps.

    Few enough warps for 16-byte accesses at the coarse levels, enough of them not to spill registers.
    """
    batch, channels, height, width = kind.shape
    levels, channels_last = kind.levels, kind.memory_format == torch.channels_last
    lanes = min(MAX_LANES, triton.next_power_of_2(channels)) if channels_last else 1
    coarse_height, coarse_width = level_sizes(height, width, levels)[-1]
    rows = min(max(1, TILE_HEIGHT >> levels), triton.next_power_of_2(coarse_height))
    columns = min(max(1, TILE_WIDTH // lanes >> levels), triton.next_power_of_2(coarse_width))
    tiles_w = triton.cdiv(coarse_width, columns)
    tiles = triton.cdiv(coarse_height, rows) * tiles_w
    values_of_a_tile = rows * columns * lanes * 4**levels
    runs = channels_last and channels <= lanes
    constants = {
        "LEVELS": levels,
        "TILE": Tile(rows, columns, lanes, channels, channels_last, runs, _TRITON_DTYPES[kind.arithmetic]),
        "WIDTH_DIVISOR": math.gcd(width, 16 << levels),
    }
    num_warps = kind.arithmetic.itemsize // 2 * max(1, values_of_a_tile // (TILE_HEIGHT * TILE_WIDTH))
    return batch * triton.cdiv(channels, lanes) * tiles, (tiles, tiles_w), constants, num_warps
