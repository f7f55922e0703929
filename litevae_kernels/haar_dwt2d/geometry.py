"""The sizes of the levels and the values of the pixels, for every backend of the Haar DWT."""

import torch
from torch import Tensor


def level_sizes(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """(H, W) of the image and of each level's sub-bands: every level halves, rounding up."""
    sizes = [(height, width)]
    for _ in range(levels):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def values_of(image: Tensor, dtype: torch.dtype) -> Tensor:
    """The image in the dtype of the arithmetic; an 8-bit pixel p is p / 127.5 - 1."""
    if image.dtype != torch.uint8:
        return image.to(dtype)
    # Divided by a tensor: for a number CUDA multiplies with its reciprocal, which rounds differently.
    return image.to(dtype) / torch.full((), 127.5, dtype=dtype, device=image.device) - 1
