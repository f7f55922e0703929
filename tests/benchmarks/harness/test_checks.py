"""Is a wrong result refused, and one that rounding explains let through?"""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.harness import checks


def test_relative_error():
    expected = torch.tensor([3.0, 4.0])
    assert checks.relative_error(torch.tensor([3.0, 4.5]), expected) == pytest.approx(0.1)
    assert checks.relative_error(torch.tensor([3.0, math.nan]), expected) == math.inf
    assert checks.relative_error(torch.zeros(3), expected) == math.inf


def test_check_close_names_the_result():
    one = [torch.ones(2), torch.ones(2)]
    checks.check_close("row", one, one, 0.0)
    with pytest.raises(AssertionError, match=r"row, result 2: relative error 1\.0e-02 is above 1\.0e-03"):
        checks.check_close("row", [one[0], one[1] * 1.01], one, 1e-3)
    with pytest.raises(AssertionError, match="result 1"):
        checks.check_close("row", [one[0] * math.nan], one[:1], 1e9)


@pytest.mark.parametrize("precision", checks.UNIT_ROUNDOFF)
def test_rounding_is_twice_the_plain_one_and_some_roundoffs(precision: str):
    exact, unit = torch.ones(2, dtype=torch.float64), checks.UNIT_ROUNDOFF[precision]
    plain = exact * (1 + 10 * unit)
    checks.check_rounding("row", precision, [exact * (1 - 23.9 * unit)], [plain], [exact])
    with pytest.raises(AssertionError, match="row, result 1: relative error"):
        checks.check_rounding("row", precision, [exact * (1 - 24.1 * unit)], [plain], [exact])
    checks.check_rounding("row", precision, [exact * (1 - 24.1 * unit)], [plain], [exact], roundoffs=5)
    with pytest.raises(AssertionError, match="result 1: relative error inf"):
        checks.check_rounding("row", precision, [exact * math.nan], [plain * math.nan], [exact])


def test_unit_roundoffs_are_those_of_the_dtypes():
    for precision in ("float32", "bfloat16"):
        assert checks.UNIT_ROUNDOFF[precision] == torch.finfo(getattr(torch, precision)).eps / 2
