"""How many launches and different kernels do encodes and updates of LiteVAE-B take on a GPU, and how many programs?"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .. import children

pytest.importorskip("triton", reason="the package triton is not installed")
pytest.importorskip("diffusers", reason="the package diffusers is not installed")


class Expected(NamedTuple):
    """Of one image of 256x256; `more_kernels` are those that larger batches add."""

    launches: int
    kernels: int
    more_kernels: int = 0


EXPECTED = {
    ("encode", "bfloat16"): Expected(277, 17),
    ("encode", "float32"): Expected(229, 18, 1),
    ("update", "bfloat16"): Expected(587, 33),
    ("update", "float32"): Expected(517, 36, 1),
}


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, Any]]:
    # A process of its own: in this one TRITON_INTERPRET has replaced the compiler.
    command = [sys.executable, "-m", "tests.kernels.recorded_launches"]
    result = children.run(command, timeout=120, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(("run", "dtype"), EXPECTED)
def test_launches_and_kernels(recorded: dict[str, dict[str, Any]], run: str, dtype: str) -> None:
    """The same number of launches for every batch, and no batch that has to wait for a compiler."""
    counts, expected = recorded[run][dtype], EXPECTED[run, dtype]
    assert set(counts["launches"]) == {expected.launches}
    assert (counts["kernels"][0], counts["kernels"][-1]) == (expected.kernels, expected.kernels + expected.more_kernels)


def test_grids_and_streams(recorded: dict[str, dict[str, Any]]) -> None:
    """Of images of 8x8 to 4096x4096, batches of 1 to 1000: what CUDA takes, on torch's current stream."""
    for counts in (counts for run in recorded.values() for counts in run.values()):
        fewest, most = counts["programs"]
        assert 1 <= fewest <= most < 2**31
        assert counts["streams"] == [70]
