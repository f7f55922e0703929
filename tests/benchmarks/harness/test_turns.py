"""Do rows that take turns have each other as rivals, and do those go that do not fit?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.harness import turns
from benchmarks.harness.measure import Round, Timing
from benchmarks.harness.schedule import FEWEST_ROUNDS, UNLIMITED, Share
from benchmarks.harness.turns import Turns


@pytest.fixture(autouse=True)
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is its number of seconds."""

    def time_interleaved(benchmark: Any, own: Round, rivals: Mapping[str, Round], share: Share) -> Timing:
        return Timing([own.expected_s] * 2, {name: [one.expected_s] * 2 for name, one in rivals.items()}, 1)

    monkeypatch.setattr(turns, "warmed", lambda seconds, share, first_s: Round(lambda: None, 1, seconds))
    monkeypatch.setattr(turns, "time_interleaved", time_interleaved)


def filled(share: Share) -> Turns:
    made = Turns(share)
    for name, seconds in {"slowest": 8.0, "yardstick": 4.0, "slow": 6.0, "fast": 1.0}.items():
        made.add(name, seconds)  # type: ignore[arg-type]
    return made


def test_every_row_has_the_others_as_rivals():
    made = filled(UNLIMITED)
    timings = made.time(None, "yardstick")  # type: ignore[arg-type]
    assert timings is not None
    assert not made.left_out
    assert timings["yardstick"].ratios == {"slowest": 0.5, "slow": 4 / 6, "fast": 4.0}
    assert timings["fast"].ratios == {"yardstick": 0.25, "slowest": 1 / 8, "slow": 1 / 6}


@pytest.mark.parametrize(
    ("round_s", "kept"),
    [(19, {"yardstick", "fast", "slow", "slowest"}), (18, {"yardstick", "fast", "slow"}), (10, {"yardstick", "fast"})],
)
def test_the_costliest_rows_are_left_out(round_s: float, kept: set[str]):
    made = filled(Share(end=0, latest=FEWEST_ROUNDS * round_s, clock=lambda: 0.0))
    timings = made.time(None, "yardstick")  # type: ignore[arg-type]
    assert timings is not None
    assert set(timings) == kept
    assert made.left_out.keys() == {"slowest", "yardstick", "slow", "fast"} - kept
    assert all("--minutes" in reason for reason in made.left_out.values())


def test_a_row_is_expected_to_need_its_check_and_its_warm_up_too():
    made = Turns(Share(end=0, latest=20.0, clock=lambda: 0.0))
    assert made.expects("yardstick", 20 / (FEWEST_ROUNDS + 2))
    made.add("yardstick", 4.0)  # type: ignore[arg-type]
    fitting = (20 - FEWEST_ROUNDS * 4) / (FEWEST_ROUNDS + 2)
    assert made.expects("fits", fitting)
    assert not made.expects("does not", fitting * 1.01)
    assert made.left_out.keys() == {"does not"}


def test_without_the_yardstick_the_test_is_skipped():
    made = Turns(Share(end=0, latest=0, clock=lambda: 1.0))
    assert not made.expects("yardstick", 0.0)
    with pytest.raises(pytest.skip.Exception, match="--minutes"):
        made.time(None, "yardstick")  # type: ignore[arg-type]
