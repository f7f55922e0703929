"""Are the operations beside which a call's cost is shown of the same shapes, and is a row what it says?"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks import bench_host_cost as bench
from benchmarks.harness.directions import FORWARD, Sample, result
from benchmarks.harness.measure import Timing

from .. import children

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("operator", bench.OPERATORS, ids=lambda operator: operator.name)
def test_the_nearest_operation_writes_as_many_elements(operator: bench.Operator):
    row = bench.HostCostRow(operator, "reference", "cpu")
    for requires_grad in (False, True):
        tensors = row.tensors(requires_grad)
        ours = result(FORWARD, partial(operator.ours, backend="reference"), Sample(tensors))
        nearest = operator.nearest(*tensors)
        assert all(tensor.requires_grad == requires_grad for tensor in (*ours, nearest))
        assert sum(tensor.numel() for tensor in ours) == nearest.numel() * (4 if operator.name == "haar_dwt2d" else 1)
        assert sum(tensor.numel() for tensor in tensors) < 512


def test_the_default_backend_is_not_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "choose_backend", lambda requested, device: {"cpu": "cpu", "cuda": "triton"}[device])
    named = {row.backend: row.ours().keywords["backend"] for row in bench.ROWS}
    assert named == {"cpu": None, "triton": None, "cuda": "cuda"}


def test_the_difference_is_paired():
    timing = Timing([3.0, 30.0, 5.0], {"slow": [5.0, 50.0, 6.0], "fast": [1.0, 20.0, 5.0]}, 1)
    assert timing.difference_s("own", "fast") == 2.0  # of 2, 10, 0; not 5 - 5
    assert timing.difference_s("slow", "fast") == 4.0
    assert timing.ratios["fast"] == 1.5


def test_launches_of_triton_without_a_gpu():
    """In a process of its own: in this one TRITON_INTERPRET has replaced the compiler."""
    pytest.importorskip("triton")
    program = """
from benchmarks.bench_host_cost import LAUNCH_ROWS, launching
for row in LAUNCH_ROWS:
    for requires_grad in (False, True):
        with launching() as driver:
            before = driver.launched
            row.call(*row.tensors(requires_grad))
            print(driver.launched - before, end=" ")
"""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""}
    result = children.run([sys.executable, "-c", program], timeout=120, cwd=REPOSITORY, env=environment)
    small, large, *others = zip(*[map(int, result.stdout.split())] * 2, strict=True)
    assert small == (1, 1)
    assert large[0] == large[1] > 1
    assert others == [(1, 1), (1, 1)]
