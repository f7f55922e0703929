"""Do the rivals of self-modulated convolution compute the same, and are the bytes those of the tensors?"""

from __future__ import annotations

import pytest
import torch

from benchmarks import bench_smc_conv2d as bench
from benchmarks.harness.directions import BACKWARD, BOTH, FORWARD, Sample, gradients

ROWS = {row.label: row for row in bench.WEIGHT_ROWS}


@pytest.fixture
def sample() -> Sample:
    """x [3, 8, 5, 6], weight [4, 8, 3, 3], scales [8], gradient of the output."""
    torch.manual_seed(0)
    shapes = [(3, 8, 5, 6), (4, 8, 3, 3), (8,), (3, 4, 5, 6)]
    *inputs, grad = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return Sample(inputs, [grad])


@pytest.fixture
def weight_sample(sample: Sample) -> Sample:
    _, weight, scales = (tensor.float() for tensor in sample.inputs)
    return Sample([weight, scales], [weight.flip(0)])


@pytest.mark.parametrize("rival", [bench.per_sample_conv2d, bench.formula_conv2d], ids=["per sample", "formula"])
def test_rivals_equal_ours(rival: bench.Convolution, sample: Sample):
    expected = gradients(bench.our_conv2d(), sample)
    actual = gradients(rival, sample)
    assert len(expected) == 4
    for result, correct in zip(actual, expected, strict=True):
        torch.testing.assert_close(result, correct, rtol=1e-11, atol=1e-11)


def test_the_yardstick_has_no_gradient_of_the_scales(sample: Sample):
    x, weight, _ = sample.inputs
    output, *found = gradients(bench.bare_conv2d, sample)
    torch.testing.assert_close(output, torch.nn.functional.conv2d(x, weight, padding=1))
    assert [tuple(gradient.shape) for gradient in found] == [tuple(x.shape), tuple(weight.shape)]


@pytest.mark.parametrize("row", bench.WEIGHT_ROWS, ids=lambda row: row.label)
def test_every_weight_row_passes_the_check_before_timing(row: bench.SmcRow, weight_sample: Sample):
    if row.unavailable:
        pytest.skip(row.unavailable)
    if row.compile:
        pytest.skip("compiling takes long; the benchmark checks it")
    on_device = Sample(*([tensor.to(bench.DEVICE) for tensor in tensors] for tensors in weight_sample))
    bench.check(row, row.function, bench.our_weight("reference", row.dtype), on_device, bench.ROUNDING[row.dtype])


@pytest.mark.parametrize("label", ["formula, eager", "formula, eager, backward", "formula, eager, forward+backward"])
def test_the_check_refuses_a_wrong_weight(label: str, weight_sample: Sample):
    def wrong(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return bench.formula(weight, scales) * (1 + 1e-3 * scales.mean())

    with pytest.raises(AssertionError, match=f"{label.replace('+', '.')}, result 1: relative error"):
        bench.check(ROWS[label], wrong, bench.our_weight("reference"), weight_sample, bench.ROUNDING[torch.float32])


def test_counted_bytes_are_those_of_the_tensors():
    weight = torch.empty(bench.ALONE_SHAPE, device="meta")
    assert bench.moved_bytes(ROWS["copy of the weight"]) == 2 * weight.nbytes
    by_direction = {row.direction: bench.moved_bytes(row) for row in bench.WEIGHT_ROWS if row.dtype == torch.float32}
    assert by_direction == {FORWARD: 2 * weight.nbytes, BACKWARD: 3 * weight.nbytes, BOTH: 5 * weight.nbytes}
    to_bfloat16 = bench.moved_bytes(ROWS["smc_weight to bfloat16, reference"])
    assert to_bfloat16 == weight.nbytes + weight.bfloat16().nbytes
