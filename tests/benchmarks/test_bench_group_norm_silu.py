"""Does each rival of GroupNorm+SiLU compute it, is a wrong one refused, and are the bytes those of the tensors?"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from benchmarks import bench_group_norm_silu as bench
from benchmarks.harness.available import missing_backend
from benchmarks.harness.directions import BACKWARD, FORWARD, gradients
from litevae_kernels import backends
from litevae_kernels.formats import memory_format_of

SMALL = [
    bench.GroupNormCase(channels, 5, dtype, layout, skip)
    for channels, skip in ((64, False), (48, True))
    for dtype in bench.TOLERANCES
    for layout in (torch.contiguous_format, torch.channels_last)
]


@pytest.fixture(autouse=True)
def small_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BATCH", 2)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)
@pytest.mark.parametrize("direction", bench.UNITS)
def test_the_rival_computes_the_same(case: bench.GroupNormCase, direction: str):
    bench.check(bench.GroupNormRow(case, direction, "reference"), bench.one_after_the_other, case.sample())


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)
@pytest.mark.parametrize("direction", bench.UNITS)
@pytest.mark.parametrize("backend", backends())
def test_every_backend_passes_the_check_before_timing(case: bench.GroupNormCase, direction: str, backend: str):
    if missing := missing_backend(backend):
        pytest.skip(missing)
    bench.check(bench.GroupNormRow(case, direction, backend), partial(bench.ours, backend=backend), case.sample())


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)
def test_a_sample_is_what_its_case_says(case: bench.GroupNormCase):
    x, weight, bias, *skip = case.sample().inputs
    (grad,) = case.sample().grads
    assert all(tensor.dtype == case.dtype for tensor in (x, weight, bias, grad, *skip))
    assert {memory_format_of(tensor) for tensor in (x, grad, *skip)} == {case.memory_format}
    assert len(skip) == case.skip
    assert x.shape == (2, case.channels, 5, 5)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)
def test_counted_bytes_are_those_of_the_tensors(case: bench.GroupNormCase):
    sample = case.sample()
    images = [tensor for tensor in sample.inputs if tensor.ndim == 4]
    output, *found = gradients(partial(bench.ours, backend="reference"), sample)
    image_bytes, output_bytes = sum(image.nbytes for image in images), output.nbytes
    gradient_bytes = sum(gradient.nbytes for gradient in found if gradient.ndim == 4)
    assert case.moved_bytes(FORWARD) == 2 * image_bytes + output_bytes
    assert case.moved_bytes(BACKWARD) == 2 * image_bytes + 2 * sample.grads[0].nbytes + gradient_bytes


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)
@pytest.mark.parametrize("direction", bench.UNITS)
def test_the_check_refuses_groups_of_another_size(case: bench.GroupNormCase, direction: str):
    def wrong(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
        joined = x if skip is None else torch.cat([x, skip], dim=1)
        return torch.nn.functional.silu(torch.nn.functional.group_norm(joined, bench.GROUPS // 2, weight, bias))

    with pytest.raises(AssertionError, match="result 1: relative error"):
        bench.check(bench.GroupNormRow(case, direction, "reference"), wrong, case.sample())


def test_every_case_has_both_layouts():
    per_layout = [
        {(case.channels, case.side, case.dtype, case.skip) for case in bench.CASES if case.memory_format == layout}
        for layout in (torch.contiguous_format, torch.channels_last)
    ]
    assert per_layout[0] == per_layout[1]
    assert len({row.label for row in bench.ROWS}) == len(bench.ROWS)
