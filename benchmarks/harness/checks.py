"""Checks before a row is timed, with bounds from the arithmetic alone, whatever instructions a CPU has.

    one operator           relative error <= unit roundoff of its dtype x the roundings that two ways differ by
    a network, float32     relative error <= 1e-4: two orders of summation through 100 layers of sums of 5,000 products,
                           whose roundings add up as a random walk to 2 sqrt(100 x 5,000) unit roundoffs, 8e-5
    a network, below it    error <= 2 x the error of PyTorch's own operations in the same precision on the same
                           machine + some unit roundoffs; both errors are distances from the result in float32

How far bfloat16 strays in a whole network depends on its depth and weights, and on where a CPU's convolutions round.
Two ways that are both right stray equally far; the factor allows for the chance that single roundings cancel in one.
"""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from litevae_kernels.precision import tf32

UNIT_ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}
FLOAT32_NETWORK = 1e-4
OWN_TO_PLAIN = 2.0


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """||actual - expected|| / ||expected|| in float64; infinite where the shapes differ or a value is not finite."""
    if actual.shape != expected.shape or not torch.isfinite(actual).all():
        return math.inf
    difference = torch.linalg.vector_norm(actual.double() - expected.double())
    return float(difference / torch.linalg.vector_norm(expected.double()))


def check_close(name: str, actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Refuse to time a wrong result: each of `actual` within `tolerance`, relative, of the one expected."""
    for index, (result, correct) in enumerate(zip(actual, expected, strict=True), start=1):
        _check(f"{name}, result {index}", relative_error(result, correct), tolerance)


def check_rounding(
    name: str,
    precision: str,
    actual: Sequence[Tensor],
    plain: Sequence[Tensor],
    exact: Sequence[Tensor],
    roundoffs: float = 4,
) -> None:
    """Refuse a result that is further from `exact` (float32) than rounding explains.

    `plain`: the same in the same `precision` by PyTorch's own operations. `roundoffs`: what one of the two may lose
    where the other one happens to lose nothing, in unit roundoffs.
    """
    for index, (result, other, correct) in enumerate(zip(actual, plain, exact, strict=True), start=1):
        bound = OWN_TO_PLAIN * relative_error(other, correct) + roundoffs * UNIT_ROUNDOFF[precision]
        _check(f"{name}, result {index}", relative_error(result, correct), bound)


def check_network(
    name: str, precision: str, actual: Sequence[Tensor], plain: Callable[[str], Sequence[Tensor]]
) -> None:
    """Refuse to time a wrong result of a network: `plain(precision)` computes it by the reference operators."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITEVAE_KERNELS_BACKEND", "reference")
        with tf32(False):
            exact = plain("float32")
        if precision == "float32":
            check_close(name, actual, exact, FLOAT32_NETWORK)
        else:
            check_rounding(name, precision, actual, plain(precision), exact)


def _check(what: str, error: float, bound: float) -> None:
    if math.isinf(error) or error > bound:
        raise AssertionError(f"{what}: relative error {error:.1e} is above {bound:.1e}")
