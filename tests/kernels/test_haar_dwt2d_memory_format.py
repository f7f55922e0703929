"""Is the result of the Haar DWT the same in the memory format that was asked for, from an image in any?"""

import pytest
import torch
from torch import Tensor

from litevae_kernels import haar_dwt2d

from .samples import assert_close, image_of, sample_layouts

MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(13, 10), (16, 24)])
def test_memory_format_of_the_result(
    backend: str, device: str, memory_format: torch.memory_format, dtype: torch.dtype, size: tuple[int, int]
) -> None:
    """The bits of a result that is converted afterwards, from an image of any strides."""
    for name, image in sample_layouts(torch.float32, device, size):
        image = (image * 60 + 128).clamp(0, 255).to(dtype) if dtype == torch.uint8 else image.to(dtype)
        expected = haar_dwt2d(image, 3, dtype=torch.float32, backend=backend)
        pyramid = haar_dwt2d(image, 3, dtype=torch.float32, memory_format=memory_format, backend=backend)
        for packed, other in zip(pyramid, expected, strict=True):
            assert torch.equal(packed, other), name
            assert packed.is_contiguous(memory_format=memory_format), name


@pytest.mark.parametrize("channels", [1, 2, 5, 20])
@pytest.mark.parametrize("size", [(8, 16), (19, 34)])
def test_memory_format_of_any_number_of_channels_and_levels(
    backend: str, device: str, channels: int, size: tuple[int, int]
) -> None:
    """Five levels are two launches on a GPU; 20 channels do not fit a tile of few of them."""
    image = image_of(*size, dtype=torch.float32, device=device, channels=channels)
    for source, result in (MEMORY_FORMATS, MEMORY_FORMATS[::-1]):
        image = image.contiguous(memory_format=source)
        for levels in (2, 5):
            pyramid = haar_dwt2d(image, levels, memory_format=result, backend=backend)
            for packed, expected in zip(pyramid, haar_dwt2d(image, levels, backend="reference"), strict=True):
                assert_close(packed, expected.double(), scale=4)
                assert packed.is_contiguous(memory_format=result)


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("size", [(5, 7), (8, 16)])
def test_memory_format_has_the_same_derivatives(
    backend: str, device: str, memory_format: torch.memory_format, size: tuple[int, int]
) -> None:
    """Exact: the numbers are small integers over 4. Each level's gradient has the level's own format, or another."""
    for source in MEMORY_FORMATS:
        image = (image_of(*size, device=device) * 4).round().contiguous(memory_format=source).requires_grad_()
        plain = haar_dwt2d(image, 2, backend="reference")
        pyramid = haar_dwt2d(image, 2, memory_format=memory_format, backend=backend)
        weights = [torch.arange(packed.numel(), device=device).view_as(packed) % 7 for packed in plain]

        def gradient(levels: tuple[Tensor, ...], image: Tensor = image, weights: list[Tensor] = weights) -> Tensor:
            total = sum((level * weight).sum() for level, weight in zip(levels, weights, strict=True))
            return torch.autograd.grad(total, image)[0]

        assert torch.equal(gradient(pyramid), gradient(plain))
