"""The time limit of a run, divided over its tests.

    share = time left x (seconds of this test / seconds of this test and all that follow)

`seconds` is what a test takes on the 2-core machine of the stored results, setup and check included. A share is spent
on setup, check and warm-up; what is left of it decides the number of rounds. Time that nobody used goes to the tests
that follow. Setup cannot be cut. A test whose setup is long takes the largest batch that fits. Any test begins only if
the setup expected of it fits in the time left: its seconds, times the share of their seconds that setup took in the
tests before it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence

DEFAULT_MINUTES = 11.0
FEWEST_ROUNDS, MOST_ROUNDS = 1, 200
OVERDRAFT, OVERDRAFT_S = 1.5, 10.0  # a test may exceed its share by as much before a row is left out
SMALLEST_SHARE = 0.25  # of the seconds of a test: with less it is not begun

Clock = Callable[[], float]
Event = Callable[[], None]


def positive(text: str) -> float:
    """What is typed after --minutes and --row-seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, got {text}")
    return value


class Share:
    """What one test may take. `end` is where its rounds stop, `latest` where the fewest rounds must have ended."""

    rounds_s = math.inf
    """The longest that the rounds may take."""

    def __init__(
        self, end: float, latest: float = math.inf, clock: Clock = time.monotonic, on_rounds: Event = lambda: None
    ) -> None:
        self.end, self.latest, self._clock, self._on_rounds = end, latest, clock, on_rounds

    def shortened(self, seconds: float) -> Share:
        shorter = Share(self.end - seconds, self.latest - seconds, self._clock, self._on_rounds)
        shorter.rounds_s = self.rounds_s
        return shorter

    def rounds(self, round_s: float) -> int:
        """As many as fit, within the limits; they begin now."""
        self._on_rounds()
        fitting = int(min(self.end - self._clock(), self.rounds_s) / max(round_s, 1e-9))
        return min(MOST_ROUNDS, max(FEWEST_ROUNDS, fitting))

    def lacks(self, round_s: float, more_s: float = 0.0) -> str:
        """Why the fewest rounds do not fit, after `more_s` of other work; "" if they do."""
        needed_s = FEWEST_ROUNDS * round_s + more_s
        if self._clock() + needed_s <= self.latest:
            return ""
        return "too slow here for the time limit; --minutes N gives more"

    def spares(self, call_s: float) -> bool:
        """Whether one more call to warm up leaves time for the fewest rounds."""
        return FEWEST_ROUNDS * call_s <= self.latest - self._clock() - call_s < math.inf

    def largest(self, sizes: Sequence[int], seconds_of: Callable[[int], float]) -> int:
        """The first of `sizes`, from the largest to the smallest, that takes no more than the share; else the last."""
        left_s = self.end - self._clock()
        return next((size for size in sizes[:-1] if seconds_of(size) <= left_s), sizes[-1])


UNLIMITED = Share(end=0.0)  # the fewest rounds, whatever they take


class Schedule:
    """The shares of the tests of one run, by test id, in their order."""

    def __init__(self, minutes: float, clock: Clock = time.monotonic) -> None:
        self._clock, self._scale = clock, minutes / DEFAULT_MINUTES
        self._end = clock() + 60 * minutes
        self._seconds: dict[str, float] = {}
        self._setup_begin: float | None = None
        self._setup_s = self._recorded_s = 0.0  # of the tests so far: setup as spent, the whole test as recorded

    def plan(self, seconds: Mapping[str, float]) -> None:
        """The tests that this run has, with the seconds that each takes; 0 for one that is left out."""
        self._seconds = dict(seconds)

    def share(self, test: str) -> Share:
        """The share of `test`, which begins now."""
        now, seconds = self._clock(), self._seconds[test]
        left_s = max(self._end - now, 0.0)
        share_s = left_s * seconds / (sum(self._seconds.values()) or 1.0)
        setup_s = seconds * self._setup_s / (self._recorded_s or 1.0)
        if share_s < SMALLEST_SHARE * seconds or setup_s > left_s:
            return Share(now, latest=-math.inf, clock=self._clock)
        self._setup_begin = now
        self._recorded_s += seconds
        end = now + min(share_s, seconds * self._scale)
        return Share(end, min(now + max(OVERDRAFT * share_s, OVERDRAFT_S), self._end), self._clock, self._setup_ends)

    def _setup_ends(self) -> None:
        if self._setup_begin is not None:
            self._setup_s += self._clock() - self._setup_begin
            self._setup_begin = None

    def finish(self, test: str) -> None:
        """All of a test that came to no rounds was setup."""
        self._setup_ends()
        self._seconds.pop(test, None)

    def seconds_left(self) -> float:
        """An estimate, never beyond the limit."""
        return max(0.0, min(self._end - self._clock(), self._scale * sum(self._seconds.values())))
