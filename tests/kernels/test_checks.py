"""Is every wrong argument refused, in the same words by every function and on every backend?"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from litevae_kernels import checks
from litevae_kernels.testing import bad_inputs


@pytest.mark.parametrize("name", sorted(bad_inputs()))
def test_bad_input(backend: str, name: str) -> None:
    bad = bad_inputs(backend)[name]
    with pytest.raises(bad.error) as raised:
        bad.call()
    assert bad.message in str(raised.value)


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (lambda: checks.check_int("n", True, 1), TypeError, "n must be an int, got True"),
        (lambda: checks.check_int("n", 0, 1, way_out="do"), ValueError, "n must be at least 1, got 0; do"),
        (lambda: checks.check_int("n", 9, 1, 8), ValueError, "n must be from 1 to 8, got 9"),
        (lambda: checks.checked_ints("n", 1, 1), TypeError, "n must be a list or tuple of ints, got 1"),
        (lambda: checks.checked_ints("n", (), 1), ValueError, "n must have at least one entry, got ()"),
        (lambda: checks.checked_ints("n", [1, 0], 1), ValueError, "n[1] must be at least 1, got 0"),
        (lambda: checks.check_number("p", "1"), TypeError, "p must be a number, got '1'"),
        (lambda: checks.check_number("p", False), TypeError, "p must be a number, got False"),
        (lambda: checks.check_number("p", math.nan), ValueError, "p must be finite, got nan"),
        (lambda: checks.check_number("p", -math.inf), ValueError, "p must be finite, got -inf"),
        (lambda: checks.check_number("p", math.inf, above=0), ValueError, "p must be finite and above 0, got inf"),
        (lambda: checks.check_number("p", 0, above=0), ValueError, "p must be finite and above 0, got 0"),
        (
            lambda: checks.check_number("p", 1, at_least=0, below=1),
            ValueError,
            "p must be at least 0 and below 1, got 1",
        ),
        (
            lambda: checks.check_number("p", 1.5, above=0, at_most=1),
            ValueError,
            "p must be above 0 and at most 1, got 1.5",
        ),
        (lambda: checks.check_number("p", -1, at_least=0), ValueError, "p must be finite and at least 0, got -1"),
        (lambda: checks.check_flag("f", 1), TypeError, "f must be True or False, got 1"),
        (lambda: checks.check_flag("f", "no", or_none=True), TypeError, "f must be True, False or None, got 'no'"),
        (lambda: checks.check_choice("c", "z", {"x": 1, "y": 2}), ValueError, "c must be one of 'x', 'y', got 'z'"),
        (lambda: checks.check_choice("c", ["x"], ("x",)), TypeError, "c must be one of 'x', got ['x']"),
    ],
)
def test_the_wording_of_a_check(check: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        check()
    assert str(raised.value) == message


def test_what_a_check_accepts() -> None:
    checks.check_int("n", 8, 1, 8)
    checks.check_number("p", 0, at_least=0, at_most=0)
    checks.check_number("p", np.float64(0.5), above=0, below=1)
    checks.check_flag("f", None, or_none=True)
    checks.check_choice("c", "x", {"x": 1})
    assert checks.checked_ints("n", [1, 2], 1) == (1, 2)
