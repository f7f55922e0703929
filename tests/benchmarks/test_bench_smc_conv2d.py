"""Do the rivals of self-modulated convolution compute the same output and gradients?"""

from __future__ import annotations

import pytest
import torch

from benchmarks import bench_smc_conv2d as bench


@pytest.fixture
def tensors() -> tuple[torch.Tensor, ...]:
    """x [3, 8, 5, 6], weight [4, 8, 3, 3], scales [8], gradient of the output."""
    torch.manual_seed(0)
    shapes = [(3, 8, 5, 6), (4, 8, 3, 3), (8,), (3, 4, 5, 6)]
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize("rival", [bench.per_sample_conv2d, bench.formula_conv2d], ids=["per sample", "formula"])
def test_rivals_equal_ours(rival: bench.Convolution, tensors: tuple[torch.Tensor, ...]):
    *inputs, grad = tensors
    expected = bench.gradients(bench.our_conv2d(), inputs, grad)
    actual = bench.gradients(rival, inputs, grad)
    assert len(expected) == 4
    for result, correct in zip(actual, expected, strict=True):
        torch.testing.assert_close(result, correct, rtol=1e-11, atol=1e-11)


def test_the_yardstick_has_no_gradient_of_the_scales(tensors: tuple[torch.Tensor, ...]):
    x, weight, scales, grad = tensors
    output, *found = bench.gradients(bench.bare_conv2d, (x, weight, scales), grad)
    torch.testing.assert_close(output, torch.nn.functional.conv2d(x, weight, padding=1))
    assert [tuple(gradient.shape) for gradient in found] == [tuple(x.shape), tuple(weight.shape)]


def test_the_check_refuses_wrong_gradients(tensors: tuple[torch.Tensor, ...]):
    *inputs, grad = tensors
    expected = bench.gradients(bench.our_conv2d(), inputs, grad)
    bench.check(expected, expected)
    with pytest.raises(AssertionError, match="result 3: relative error"):
        bench.check([*expected[:3], expected[3] * 1.001], expected)
