"""What do the tests of the operators share? Every backend that runs here, and fresh memory that holds NaN."""

from collections.abc import Iterator

import pytest
import torch

from litevae_kernels import backends


@pytest.fixture(autouse=True)
def fresh_memory_is_nan() -> Iterator[None]:
    """An element that a kernel forgets to write shows up as NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["reference", "cpu", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    status = backends()[request.param]
    if not status.available:
        pytest.skip(status.reason)
    return request.param


@pytest.fixture
def device(backend: str) -> str:
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
