"""The launches of a GPU backend: up to MAX_FUSED_LEVELS levels each, joined through an L in the arithmetic's dtype.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from litevae_kernels.formats import arithmetic_dtype, memory_format_of
from litevae_kernels.haar_dwt2d.geometry import empty_image, empty_pyramid, level_sizes, result_format

MAX_FUSED_LEVELS = 4
# launch(image, packed levels, L of the coarsest one, memory format of the levels). L is absent where the pyramid ends.
Launch = Callable[[Tensor, Sequence[Tensor], Tensor | None, torch.memory_format], None]


def analysis(
    launch: Launch, image: Tensor, levels: int, dtype: torch.dtype, memory_format: torch.memory_format
) -> list[Tensor]:
    """The packed levels, finest first; `launch` fills those that it gets from the image, and L."""
    memory_format, arithmetic = result_format(image, memory_format), arithmetic_dtype(image.dtype, dtype)
    pyramid = empty_pyramid(image, levels, dtype, memory_format)
    if image.numel() == 0:
        return pyramid
    source = image
    for done in range(0, levels, MAX_FUSED_LEVELS):
        outputs = pyramid[done : done + MAX_FUSED_LEVELS]
        coarsest = done + len(outputs)
        height, width = outputs[-1].shape[2:]
        low = None if coarsest == levels else empty_image(outputs, height, width, arithmetic)
        launch(source, outputs, low, memory_format)
        source = source if low is None else low
    return pyramid


def synthesis(launch: Launch, pyramid: Sequence[Tensor], height: int, width: int, dtype: torch.dtype) -> Tensor:
    """The image; `launch` fills it from the packed levels that it gets and L."""
    memory_format, arithmetic = memory_format_of(pyramid[0]), arithmetic_dtype(pyramid[0].dtype, dtype)
    pyramid = [packed.contiguous(memory_format=memory_format) for packed in pyramid]
    sizes = level_sizes(height, width, len(pyramid))
    low = None
    for first in reversed(range(0, len(pyramid), MAX_FUSED_LEVELS)):
        image = empty_image(pyramid, *sizes[first], dtype if first == 0 else arithmetic)
        if image.numel() > 0:
            launch(image, pyramid[first : first + MAX_FUSED_LEVELS], low, memory_format)
        low = image
    return image


def four(levels: Sequence[Tensor]) -> list[Tensor]:
    """Kernels have parameters for MAX_FUSED_LEVELS levels; absent ones repeat the last and are never accessed."""
    return [*levels, *[levels[-1]] * (MAX_FUSED_LEVELS - len(levels))]
