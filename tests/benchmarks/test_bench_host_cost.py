"""Are the operations beside which a call's cost is shown of the same shapes, and is a row what it says?"""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks import bench_host_cost as bench
from benchmarks.harness.directions import FORWARD, Sample, result
from benchmarks.harness.measure import Timing


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
