"""The Triton backend of the Haar DWT: sizes of tiles, numbers of programs, and the launches.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import math
from collections.abc import Sequence
from typing import Any

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

MAX_LANES = 16
TILE_HEIGHT, TILE_WIDTH = 16, 128  # rows of the image, and columns times lanes
_TRITON_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


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
        programs, geometry = _geometry(image, len(outputs), memory_format, arithmetic)
        extend_height, extend_width = (not transpose and side % 2 ** len(outputs) != 0 for side in image.shape[-2:])
        with on_device(image.get_device()):
            haar_dwt2d_fwd_kernel[(programs,)](
                image,
                *cascade.four(outputs),
                _or_empty(low, image, arithmetic),
                *image.stride(),
                *image.shape[-2:],
                factor,
                **geometry,
                TRANSPOSE=transpose,
                COPY_LOW=low is not None,
                EXTEND_ROWS=extend_height,
                EXTEND_COLUMNS=extend_width,
                IMAGE_IN_RUNS=geometry["TILE"].runs and image.stride(1) == 1 and image.stride(3) == image.shape[1],
            )

    return cascade.analysis(launch, image, levels, dtype, memory_format)


def synthesis(
    pyramid: Sequence[Tensor], height: int, width: int, factor: float, dtype: torch.dtype, transpose: bool = False
) -> Tensor:
    """As `reference.synthesis`; levels that are not dense in the finest level's memory format are copied."""
    arithmetic = arithmetic_dtype(pyramid[0].dtype, dtype)

    def launch(image: Tensor, inputs: Sequence[Tensor], low: Tensor | None, memory_format: torch.memory_format) -> None:
        programs, geometry = _geometry(image, len(inputs), memory_format, arithmetic)
        with on_device(image.get_device()):
            haar_dwt2d_bwd_kernel[(programs,)](
                *cascade.four(inputs),
                _or_empty(low, image, arithmetic),
                image,
                *image.shape[-2:],
                factor,
                **geometry,
                TRANSPOSE=transpose,
                FROM_COPY=low is not None,
            )

    return cascade.synthesis(launch, pyramid, height, width, dtype)


def _or_empty(low: Tensor | None, image: Tensor, dtype: torch.dtype) -> Tensor:
    """L, or an empty tensor for an absent one, which the kernels do not access."""
    return image.new_empty(0, dtype=dtype) if low is None else low


def _geometry(
    image: Tensor, levels: int, memory_format: torch.memory_format, arithmetic: torch.dtype
) -> tuple[int, dict[str, Any]]:
    """The number of programs, and the arguments that say which tile each of them has.

    Few enough warps for 16-byte accesses at the coarse levels, enough of them not to spill registers.
    """
    batch, channels, height, width = image.shape
    channels_last = memory_format == torch.channels_last
    lanes = min(MAX_LANES, triton.next_power_of_2(channels)) if channels_last else 1
    coarse_height, coarse_width = level_sizes(height, width, levels)[-1]
    rows = min(max(1, TILE_HEIGHT >> levels), triton.next_power_of_2(coarse_height))
    columns = min(max(1, TILE_WIDTH // lanes >> levels), triton.next_power_of_2(coarse_width))
    tiles_w = triton.cdiv(coarse_width, columns)
    tiles = triton.cdiv(coarse_height, rows) * tiles_w
    values_of_a_tile = rows * columns * lanes * 4**levels
    runs = channels_last and channels <= lanes
    return batch * triton.cdiv(channels, lanes) * tiles, {
        "tiles": tiles,
        "tiles_w": tiles_w,
        "LEVELS": levels,
        "TILE": Tile(rows, columns, lanes, channels, channels_last, runs, _TRITON_DTYPES[arithmetic]),
        "WIDTH_DIVISOR": math.gcd(width, 16 << levels),
        "num_warps": arithmetic.itemsize // 2 * max(1, values_of_a_tile // (TILE_HEIGHT * TILE_WIDTH)),
    }
