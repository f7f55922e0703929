"""Does a run end on time, whatever its rows take?"""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
import torch

from benchmarks.harness import available
from benchmarks.harness.schedule import FEWEST_ROUNDS, MOST_ROUNDS, OVERDRAFT, OVERDRAFT_S, UNLIMITED, Schedule, Share


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_shares_follow_the_recorded_seconds():
    clock = Clock()
    schedule = Schedule(minutes=11, clock=clock)
    schedule.plan({"a": 1.0, "b": 3.0, "left out": 0.0})
    assert schedule.share("a").end == clock.now + 1  # no longer than recorded, though there is time
    clock.now += 656  # ... which "a" has spent: 4 seconds are left
    assert schedule.share("a").end == clock.now + 1
    assert schedule.share("b").latest == clock.now + 4  # the end of the run
    schedule.finish("a")
    clock.now += 2
    assert schedule.share("b").end == clock.now + 2
    assert schedule.seconds_left() == 2
    clock.now += 5
    assert schedule.share("b").lacks(0.1)
    assert schedule.seconds_left() == 0


def test_a_share_may_be_exceeded_by_a_half_or_by_seconds():
    schedule = Schedule(minutes=11, clock=lambda: 0.0)
    schedule.plan({"a": 100.0, "b": 50.0, "short": 0.1})
    assert schedule.share("a").latest == pytest.approx(660 * 100 / 150.1 * OVERDRAFT)
    assert schedule.share("short").latest == OVERDRAFT_S


def test_a_test_that_cannot_end_here_is_not_begun():
    clock = Clock()
    schedule = Schedule(minutes=11, clock=clock)
    schedule.plan({"a": 10.0, "large": 100.0})
    schedule.share("a")
    clock.now += 560  # 56 times as slow as recorded
    schedule.finish("a")
    assert schedule.share("large").lacks(0.0)  # 100 seconds are left, and its setup would take 5,600


def test_more_minutes_are_more_rounds():
    clock = Clock()
    schedule = Schedule(minutes=44, clock=clock)
    schedule.plan({"a": 1.0, "b": 3.0})
    assert schedule.share("a").end == clock.now + 4


@pytest.mark.parametrize("slowness", [0.1, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 16.0])
def test_a_run_ends_within_its_minutes_on_any_machine(slowness: float):
    """Of rows, some of them long, that take what is recorded times the slowness and chance, all end in time."""
    clock, chance, left_out = Clock(), random.Random(0), 0
    schedule = Schedule(minutes=10, clock=clock)
    recorded = {str(row): 50.0 if row % 25 == 24 else chance.uniform(0.5, 3.0) for row in range(125)}
    schedule.plan(recorded)
    for name, seconds in recorded.items():
        share = schedule.share(name)
        round_s = slowness * seconds * chance.uniform(0.02, 0.2)
        begun = not share.lacks(0.0)
        clock.now += begun * slowness * seconds * 0.3  # setup, before the time of a round is known
        fits = begun and not share.lacks(round_s)
        left_out += not fits
        clock.now += share.rounds(round_s) * round_s if fits else 0.0
        schedule.finish(name)
    assert clock.now - 100 <= 600
    assert (left_out == 0) == (slowness < 4)


def test_rounds_are_few_to_many():
    assert Share(end=10, clock=lambda: 0).rounds(0.5) == 20
    assert Share(end=10, clock=lambda: 0).rounds(50) == FEWEST_ROUNDS
    assert Share(end=10, clock=lambda: 0).rounds(1e-6) == MOST_ROUNDS
    assert (UNLIMITED.rounds(1e-6), UNLIMITED.lacks(1e6)) == (FEWEST_ROUNDS, "")


def test_rounds_may_have_a_limit_of_their_own():
    share = Share(end=10, clock=lambda: 0)
    share.rounds_s = 2
    assert share.rounds(0.5) == share.shortened(1).rounds(0.5) == 4
    assert share.rounds(3) == FEWEST_ROUNDS


@pytest.mark.parametrize(("seconds_a_unit", "size"), [(1, 4), (2.5, 4), (2.6, 2), (5, 2), (5.1, 1), (100, 1)])
def test_the_largest_size_that_fits_is_taken(seconds_a_unit: float, size: int):
    share = Share(end=110, clock=lambda: 100.0)
    assert share.largest((4, 2, 1), lambda size: size * seconds_a_unit) == size
    assert UNLIMITED.largest((4, 2, 1), lambda size: 1e-9) == 1  # --quick: to try


@pytest.mark.parametrize("has_units", [True, False])
def test_bfloat16_is_emulated_where_onednn_says_so(has_units: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: has_units))
    assert available.emulated(torch.float32, "cpu") == available.emulated(torch.bfloat16, "cuda") == ""
    assert ("--all-rows" in available.emulated(torch.bfloat16, "cpu")) == (not has_units)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)  # a build without oneDNN
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    assert "--all-rows" in available.emulated(torch.bfloat16, "cpu")
    assert math.isinf(UNLIMITED.latest)
