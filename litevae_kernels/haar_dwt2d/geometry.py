"""The sizes of the levels, empty results and the values of the pixels, for every backend of the Haar DWT."""

from collections.abc import Sequence

import torch
from torch import Tensor

from litevae_kernels.formats import memory_format_of


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


def result_format(image: Tensor, memory_format: torch.memory_format) -> torch.memory_format:
    """The memory format of an image's sub-bands; preserve_format stands for the image's, and all do in torch.func."""
    if memory_format == torch.preserve_format or torch._C._are_functorch_transforms_active():
        return memory_format_of(image)
    return memory_format


def empty_pyramid(
    image: Tensor, levels: int, dtype: torch.dtype, memory_format: torch.memory_format = torch.preserve_format
) -> list[Tensor]:
    """The packed levels of an image, finest first."""
    batch, channels, height, width = image.shape
    memory_format = result_format(image, memory_format)
    return [
        torch.empty((batch, 4 * channels, h, w), dtype=dtype, device=image.device, memory_format=memory_format)
        for h, w in level_sizes(height, width, levels)[1:]
    ]


def empty_image(pyramid: Sequence[Tensor], height: int, width: int, dtype: torch.dtype) -> Tensor:
    """[B, C, height, width] in the memory format of the finest level."""
    finest = pyramid[0]
    shape = (finest.shape[0], finest.shape[1] // 4, height, width)
    return torch.empty(shape, dtype=dtype, device=finest.device, memory_format=memory_format_of(finest))
