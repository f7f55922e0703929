"""Sample inputs and tolerances of the operators' tests."""

from collections.abc import Iterator

import torch
from torch import Tensor

# (absolute, relative) against a float64 result: at least sixteen times the dtype's unit roundoff. A result is rounded
# once, and the float32 arithmetic before it adds a few roundoffs of float32. In float64 the sums add some thousand.
TOLERANCES = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (4e-6, 4e-6),
    torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (1.6e-2, 1.6e-2),
}
SIZES = ((1, 1), (1, 6), (7, 1), (2, 2), (8, 8), (13, 10), (31, 33), (67, 129))


def assert_close(actual: Tensor, expected: Tensor, scale: float = 1.0) -> None:
    """Compares with the float64 result `expected` within the tolerance of `actual`'s dtype times `scale`."""
    absolute, relative = TOLERANCES[actual.dtype]
    torch.testing.assert_close(
        actual.double(), expected.double(), atol=scale * absolute, rtol=scale * relative, check_stride=False
    )


def image_of(*size: int, dtype: torch.dtype = torch.float64, device: str = "cpu", channels: int = 3) -> Tensor:
    """Noise [2, channels, *size]: the same values, rounded to `dtype`, on every device."""
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(2, channels, *size, generator=generator, dtype=torch.float64).to(device, dtype)


def sample_layouts(
    dtype: torch.dtype, device: str = "cpu", size: tuple[int, int] = (13, 10)
) -> Iterator[tuple[str, Tensor]]:
    """Images [2, 3, H, W] with every kind of strides, by name."""
    height, width = size
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    yield "contiguous", values(2, 3, height, width)
    yield "channels_last", values(2, 3, height, width).to(memory_format=torch.channels_last)
    yield "permuted", values(3, height, 2, width).permute(2, 0, 1, 3)
    yield "transposed", values(2, 3, width, height).mT
    yield "sliced", values(2, 5, height + 2, 2 * width)[:, 1:4, 1:-1, ::2]
    yield "expanded", values(2, 1, height, 1).expand(2, 3, height, width)
    yield "misaligned", values(2 * 3 * height * width + 1)[1:].view(2, 3, height, width)
    yield "channels_last slice", values(2, height, width + 3, 3)[:, :, 1:-2].permute(0, 3, 1, 2)
