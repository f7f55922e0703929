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

from litevae_kernels.formats import arithmetic_dtype
from litevae_kernels.haar_dwt2d import cascade
from litevae_kernels.haar_dwt2d.geometry import level_sizes
from litevae_kernels.haar_dwt2d.triton_backward import haar_dwt2d_bwd_kernel
from litevae_kernels.haar_dwt2d.triton_forward import haar_dwt2d_fwd_kernel

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
        programs, tile = _tiles(image, len(outputs), memory_format, arithmetic)
        odd_height, odd_width = (side % 2 ** len(outputs) != 0 for side in image.shape[-2:])
        channels, goes_on = image.shape[1], low is not None
        with torch.cuda.device_of(image):
            haar_dwt2d_fwd_kernel[(programs,)](
                image, *cascade.four(outputs), _or_empty(low, image, arithmetic), *image.stride(), *image.shape[-2:],
                factor, **tile, LEVELS=len(outputs), TRANSPOSE=transpose, COPY_LOW=goes_on,
                EXTEND_ROWS=odd_height and not transpose,
                EXTEND_COLUMNS=odd_width and not transpose,
                IMAGE_IN_RUNS=1 < channels <= tile["LANES"] and image.stride(1) == 1 and image.stride(3) == channels,
            )  # fmt: skip

    return cascade.analysis(launch, image, levels, dtype, memory_format)


def synthesis(
    pyramid: Sequence[Tensor], height: int, width: int, factor: float, dtype: torch.dtype, transpose: bool = False
) -> Tensor:
    """As `reference.synthesis`; levels that are not dense in the finest level's memory format are copied."""
    arithmetic = arithmetic_dtype(pyramid[0].dtype, dtype)

    def launch(image: Tensor, inputs: Sequence[Tensor], low: Tensor | None, memory_format: torch.memory_format) -> None:
        programs, tile = _tiles(image, len(inputs), memory_format, arithmetic)
        with torch.cuda.device_of(image):
            haar_dwt2d_bwd_kernel[(programs,)](
                *cascade.four(inputs), _or_empty(low, image, arithmetic), image, *image.shape[-2:], factor, **tile,
                LEVELS=len(inputs), TRANSPOSE=transpose, FROM_COPY=low is not None,
            )  # fmt: skip

    return cascade.synthesis(launch, pyramid, height, width, dtype)


def _or_empty(low: Tensor | None, image: Tensor, dtype: torch.dtype) -> Tensor:
    """L, or an empty tensor for an absent one, which the kernels do not access."""
    return image.new_empty(0, dtype=dtype) if low is None else low


def _tiles(
    image: Tensor, levels: int, memory_format: torch.memory_format, arithmetic: torch.dtype
) -> tuple[int, dict[str, Any]]:
    """The number of programs, and the tile of each: ROWS and COLUMNS of the coarsest level, LANES channels.

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
    sizes_of_a_tile = max(1, rows * columns * lanes * 4**levels // (TILE_HEIGHT * TILE_WIDTH))
    return batch * triton.cdiv(channels, lanes) * tiles, {
        "tiles": tiles, "tiles_w": tiles_w, "ROWS": rows, "COLUMNS": columns, "LANES": lanes, "CHANNELS": channels,
        "WIDTH_DIVISOR": math.gcd(width, 16 << levels), "CHANNELS_LAST": channels_last,
        "ARITHMETIC": _TRITON_DTYPES[arithmetic], "num_warps": arithmetic.itemsize // 2 * sizes_of_a_tile,
    }  # fmt: skip
