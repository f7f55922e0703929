"""Rows that take turns in the rounds of one test, so that every ratio between them is paired."""

from collections.abc import Mapping

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness.measure import Round, Step, Timing, time_interleaved, warmed
from benchmarks.harness.schedule import FEWEST_ROUNDS, Share


class Turns:
    """Collects the rows of a test. Those for which its share has no time are left out, the costliest first.

    `calls_after`: of every row, once its rounds are over; they are in the share too.
    """

    def __init__(self, share: Share) -> None:
        self.share = share
        self.rounds: dict[str, Round] = {}
        self.left_out: dict[str, str] = {}
        """Reasons by name."""

    def expects(self, name: str, seconds: float) -> bool:
        """Whether there is time for one more row, whose call takes about `seconds`: its check, its warm-up, rounds."""
        reason = self.share.lacks(self._round_s() + seconds, 2 * seconds)
        if reason:
            self.left_out[name] = reason
        return not reason

    def add(self, name: str, step: Step, first_s: float | None = None) -> None:
        """`first_s`: what a first call took that was made already."""
        self.rounds[name] = warmed(step, self.share.shortened(FEWEST_ROUNDS * self._round_s()), first_s)

    def time(self, benchmark: BenchmarkFixture, own: str) -> Mapping[str, Timing] | None:
        """The rounds of each row by name, the others as its rivals. `own` is pytest-benchmark's, and never left out."""
        if own not in self.rounds:
            pytest.skip(self.left_out[own])
        while len(self.rounds) > 1 and (reason := self.share.lacks(self._round_s())):
            others = self.rounds.keys() - {own}
            costliest = max(others, key=lambda name: self.rounds[name].expected_s)
            self.left_out[costliest] = reason
            del self.rounds[costliest]
        rivals = {name: one for name, one in self.rounds.items() if name != own}
        timing = time_interleaved(benchmark, self.rounds[own], rivals, self.share)
        return None if timing is None else {own: timing, **{name: timing.of(name, own) for name in rivals}}

    def _round_s(self) -> float:
        return sum(one.expected_s for one in self.rounds.values())
