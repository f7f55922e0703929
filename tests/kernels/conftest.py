"""What do the tests of the operators share? Every backend that runs here, and fresh memory that holds NaN."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import cuda_on_host

from litevae_kernels import backends, nvrtc


@pytest.fixture(autouse=True)
def fresh_memory_is_nan() -> Iterator[None]:
    """An element that a kernel forgets to write shows up as NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["reference", "cpu", "triton", "cuda"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """`cuda` runs on the host where there is no GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if cuda_on_host.missing() is not None:
            pytest.skip(cuda_on_host.missing())
        monkeypatch.setattr(nvrtc, "host_launch", cuda_on_host.launch)
    status = backends()[request.param]
    if not status.available:
        pytest.skip(status.reason)
    return request.param


@pytest.fixture
def device(backend: str) -> str:
    return "cuda" if backend in ("triton", "cuda") and torch.cuda.is_available() else "cpu"
