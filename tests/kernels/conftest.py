"""What do the tests of the operators share? Every backend that runs here, and fresh memory that holds NaN."""

import importlib.util
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.version import Version

sys.path.insert(0, str(Path(__file__).parent))
import cuda_on_host

from litevae_kernels import backends, nvrtc
from litevae_kernels.precision import tf32

NUMPY_ERROR = "only 0-dimensional arrays can be converted to Python scalars"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """NumPy 2.4 refuses what Triton's interpreter did until 3.7: int() of an array with one element."""
    try:
        return (yield)
    except Exception as error:
        if NUMPY_ERROR in str(error) and is_older("triton", "3.7") and not is_older("numpy", "2.4"):
            pytest.skip(f"Triton's interpreter before 3.7 does not run with NumPy 2.4: {NUMPY_ERROR}")
        raise


def is_older(package: str, version: str) -> bool:
    return importlib.util.find_spec(package) is not None and Version(metadata.version(package)) < Version(version)


@pytest.fixture(autouse=True)
def fresh_memory_is_nan() -> Iterator[None]:
    """An element that a kernel forgets to write shows up as NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    with tf32(False):
        yield


@pytest.fixture(autouse=True)
def nothing_stays_compiled() -> Iterator[None]:
    """What torch.compile could not trace in one test it would not try in the next."""
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


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
