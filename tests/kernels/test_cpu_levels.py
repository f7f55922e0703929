"""The levels of vector instructions of the CPU kernels: which one runs, and that each has code of its own.

tests/csrc/levels.py runs the other tests of the backend `cpu` at every level.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from litevae_kernels import backends, group_norm_silu, native
from litevae_kernels.backends import choose_backend
from litevae_kernels.group_norm_silu import cpu, reference

from .samples import assert_close, image_of


@pytest.fixture
def set_level() -> Iterator[Callable[[str], None]]:
    available, reason = native.status()
    if not available:
        pytest.skip(reason)
    yield lambda level: native.library().litevae_native_limit_level(native.LEVELS.index(level))
    native._set_level.cache_clear()
    native.status()  # sets the level of this process again


def test_the_level_that_was_asked_for_runs(set_level: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for level in native.levels():
        with monkeypatch.context() as patch:
            patch.setenv(native.LEVEL_VARIABLE, level)
            native._set_level.cache_clear()
            assert f", level {level}, " in native.status()[1]
    if native.LEVEL_VARIABLE not in os.environ:
        native._set_level.cache_clear()
        assert f", level {native.levels()[-1]}, " in native.status()[1]


@pytest.mark.usefixtures("set_level")
def test_a_level_that_this_cpu_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.LEVEL_VARIABLE, "avx9")
    native._set_level.cache_clear()
    sys.modules[choose_backend.__module__]._lasting_status.cache_clear()
    message = f"LITEVAE_KERNELS_CPU_LEVEL must be one of '{native.levels()[0]}'.*, got 'avx9'; unset it"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            choose_backend(None, "cpu")
    available, reason = backends()["cpu"]
    assert not available
    assert re.match(message, reason)


def test_the_level_is_set_once(set_level: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may be inside a kernel."""
    calls, library = [], native.library()
    monkeypatch.setattr(native, "library", lambda: library)
    monkeypatch.setattr(library, "litevae_native_limit_level", calls.append)
    native._set_level.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: (native.levels(), native.status()), range(8)))
    assert len(calls) == 1


def test_each_level_is_code_of_its_own_and_right(set_level: Callable[[str], None]) -> None:
    """Levels differ in the number of partial sums and in fused multiply-adds, so the last bits of results differ."""
    image, results = image_of(64, 96, channels=8, dtype=torch.float32), set()
    expected, *_ = reference.group_norm_silu(image.double(), 4, None, None, 1e-6, None)
    levels = [level for level in native.levels() if level != "avx512_bf16"]  # which is avx512 in float32
    for level in levels:
        set_level(level)
        output, mean, _ = cpu.group_norm_silu(image, 4, None, None, 1e-6, None)
        assert_close(output, expected)
        results.add(output.numpy().tobytes() + mean.numpy().tobytes())
    assert len(results) == len(levels)


def test_bfloat16_is_rounded_alike_with_and_without_an_instruction_for_it(set_level: Callable[[str], None]) -> None:
    if "avx512_bf16" not in native.levels():
        pytest.skip("this CPU does not have avx512_bf16")
    image, results = image_of(64, 96, channels=8, dtype=torch.bfloat16), []
    for level in ("avx512", "avx512_bf16"):
        set_level(level)
        results.append(group_norm_silu(image, 4, backend="cpu"))
    assert torch.equal(*results)
