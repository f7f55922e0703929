"""What do the tests of the models share? A narrow LiteVAE, images, and the tolerance of float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from litevae import LiteVAE

from .variants import randomized

NARROW: dict[str, Any] = {
    "extraction_channels": 8,
    "extraction_multipliers": (1, 2),
    "aggregation_channels": 8,
    "aggregation_multipliers": (1, 2),
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Narrow models gain nothing from threads, and lose much where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_model():
    """make_model(**arguments): a narrow LiteVAE in eval mode whose every parameter is random, biases and gains too."""

    def make(**arguments: Any) -> LiteVAE:
        torch.manual_seed(0)
        return randomized(LiteVAE(**{**NARROW, **arguments}).eval())

    return make


@pytest.fixture
def image() -> torch.Tensor:
    """Two smooth images and noise in [-1, 1], [3, 3, 32, 24]."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 2, 24), indexing="ij")
    smooth = torch.stack([torch.sin(rows + columns), torch.cos(rows * columns), torch.sin(2 * rows)])
    noise = torch.rand(3, 32, 24, generator=generator) * 2 - 1
    return torch.stack([smooth, smooth.flip(0), noise])


@pytest.fixture
def assert_same():
    """assert_same(actual, expected): equal but for the rounding of float32 sums in another order."""

    def check(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-5) -> None:
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())

    return check
