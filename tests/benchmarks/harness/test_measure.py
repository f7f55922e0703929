"""Do the clock and the counters count what they say?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness import bandwidth, measure
from benchmarks.harness.schedule import FEWEST_ROUNDS, UNLIMITED, Share

KILO = 1000 * 4  # bytes of 1000 float32


def test_peak_allocated_bytes_is_beside_what_was_there():
    x = torch.zeros(2**20, device=measure.DEVICE)

    def step() -> None:
        y = x + 1
        y = y * 2  # two of them at once
        y = y[:1] + 3

    peak = measure.peak_allocated_bytes(step)
    assert 2 * 2**22 <= peak <= 2 * 2**22 + 4096  # and a few scalars


def test_multiply_accumulates_of_convolutions_and_attention():
    convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1, device="meta")
    image = torch.empty(5, 3, 16, 12, device="meta")
    assert measure.multiply_accumulates(convolution, image) == 5 * 8 * (8 * 6) * (3 * 3 * 3)

    tokens = torch.empty(2, 1, 10, 7, device="meta")
    attention = measure.multiply_accumulates(lambda q: F.scaled_dot_product_attention(q, q, q), tokens)
    assert attention == 2 * (2 * 10 * 10 * 7)  # q k^T and its product with v


def test_rotating_goes_beyond_the_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "BEYOND_CACHE_BYTES", 90)
    inputs = itertools.cycle(measure.beyond_cache(lambda: (torch.rand(5), [torch.rand(5)])))  # 40 bytes each
    seen = [next(inputs)[0].data_ptr() for _ in range(8)]
    assert len(set(seen[:4])) == 4
    assert seen[:4] == seen[4:]


class DriftingMachine:
    """A clock for steps of known cost, and a machine that gets 10 % slower with every call."""

    def __init__(self, drift: float) -> None:
        self.now, self.slowness, self.drift = 0.0, 1.0, drift

    def step(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds * self.slowness
            self.slowness *= self.drift

        return run


class Pedantic:
    """Of pytest-benchmark's fixture, what time_interleaved uses; reads the given clock."""

    def __init__(self, clock: Callable[[], float], disabled: bool = False) -> None:
        self.clock, self.disabled = clock, disabled
        self.stats: Any = SimpleNamespace(stats=SimpleNamespace(data=[]))

    def pedantic(
        self, target: measure.Step, rounds: int = 1, iterations: int = 1, warmup_rounds: int = 0, teardown: Any = None
    ) -> None:
        for index in range(-warmup_rounds, rounds):
            start = self.clock()
            for _ in range(iterations):
                target()
            if index >= 0:
                self.stats.stats.data.append((self.clock() - start) / iterations)
            if teardown is not None:
                teardown()


def timed(monkeypatch: pytest.MonkeyPatch, machine: DriftingMachine, own_s: float, rival_s: float) -> measure.Timing:
    """Rounds of own_s + rival_s within 0.6 s, and half a nanosecond for floating point."""
    monkeypatch.setattr(measure, "clock", lambda: machine.now)
    benchmark: Any = Pedantic(measure.clock)
    rivals = {"rival": machine.step(rival_s)}
    share = Share(end=0.6000000005, clock=lambda: 0.0)
    timing = measure.time_interleaved(benchmark, machine.step(own_s), rivals, share)
    assert timing is not None
    return timing


def test_ratios_compare_neighbours(monkeypatch: pytest.MonkeyPatch):
    drifting = timed(monkeypatch, DriftingMachine(drift=1.1), own_s=0.02, rival_s=0.01)
    assert drifting.ratios["rival"] == pytest.approx(2 / 1.1)  # one step of drift apart, however long the run
    assert drifting.iqr_ms > 0.5 * 20
    steady = timed(monkeypatch, DriftingMachine(drift=1.0), own_s=0.02, rival_s=0.01)
    assert steady.ratios["rival"] == pytest.approx(2)
    assert steady.median_s == pytest.approx(0.02)
    assert steady.iqr_ms == pytest.approx(0)
    assert (steady.rounds, steady.iterations) == (20, 1)


def test_a_row_that_measures_the_host_is_marked(monkeypatch: pytest.MonkeyPatch):
    assert measure.DEVICE.type == "cuda" or measure.host_seconds(lambda: None) is None
    monkeypatch.setattr(measure, "DEVICE", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert 0.01 < (measure.host_seconds(lambda: time.sleep(0.01)) or 0) < 1
    timings = [measure.Timing([1.0, 1.0], {"copy": [1.0, 1.0]}, 1, host_s) for host_s in (0.7, 0.9)]
    assert [timing.measures_host for timing in timings] == [False, True]
    rows = [bandwidth.speed(timing, 8.0, torch.zeros(1)) for timing in timings]
    assert [(row["host_ms"], row["bound"]) for row in rows] == [(700, None), (900, "host")]


def test_a_single_round_has_no_scatter():
    timing = measure.Timing([2.0], {}, 1)
    assert timing.iqr_ms is None
    assert timing.images_per_second(4) == {"img_per_s": 2.0, "iqr_img_per_s": None, "rounds": 1}


def test_seconds_a_gmac_are_those_of_its_convolution(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "seconds_per_call", lambda step, calls: 3.0)
    found = measure.seconds_a_gmac.__wrapped__(torch.float32)
    assert found == pytest.approx(3 / (128 * 9 * 128 * 128 * 128 / 1e9))


def test_short_steps_are_repeated_within_a_round(monkeypatch: pytest.MonkeyPatch):
    timing = timed(monkeypatch, DriftingMachine(drift=1.0), own_s=measure.ROUND_S / 7.5, rival_s=0.01)
    assert timing.iterations == 8
    assert timing.median_s == pytest.approx(measure.ROUND_S / 7.5)
    assert timing.rounds == 49  # of 8 x 0.27 + 10 ms


def test_disabled_runs_once_and_times_nothing():
    calls: list[int] = []
    benchmark: Any = Pedantic(lambda: 0.0, disabled=True)
    assert measure.time_interleaved(benchmark, lambda: calls.append(1), {}, UNLIMITED) is None
    assert calls == [1]


def test_a_slow_step_is_called_no_more_than_its_rounds_need(monkeypatch: pytest.MonkeyPatch):
    machine, calls = DriftingMachine(drift=1.0), {"own": 0, "rival": 0}
    monkeypatch.setattr(measure, "clock", lambda: machine.now)

    def step(name: str) -> Callable[[], None]:
        def run() -> None:
            calls[name] += 1
            machine.now += 3.0

        return run

    benchmark: Any = Pedantic(measure.clock)
    timing = measure.time_interleaved(benchmark, step("own"), {"rival": step("rival")}, UNLIMITED)
    assert timing is not None
    assert (timing.rounds, timing.ratios) == (FEWEST_ROUNDS, {"rival": 1})
    assert calls == {"own": 1 + FEWEST_ROUNDS, "rival": 1 + FEWEST_ROUNDS}


@pytest.mark.parametrize(("latest", "expected_s"), [(19, 10), (29, 10), (30, 1), (40, 1)])
def test_a_cold_call_is_not_taken_for_a_warm_one(latest: float, expected_s: float, monkeypatch: pytest.MonkeyPatch):
    """The first call takes 10 s, others 1 s. No second one where it leaves no time for a round."""
    seconds, machine = iter([10.0, 1.0]), DriftingMachine(drift=1.0)
    monkeypatch.setattr(measure, "clock", lambda: machine.now)
    share = Share(end=0, latest=latest, clock=lambda: machine.now)
    assert measure.warmed(lambda: machine.step(next(seconds))(), share).expected_s == expected_s


def test_a_row_whose_fewest_rounds_come_too_late_is_skipped(monkeypatch: pytest.MonkeyPatch):
    machine = DriftingMachine(drift=1.0)
    monkeypatch.setattr(measure, "clock", lambda: machine.now)
    benchmark: Any = Pedantic(measure.clock)
    share = Share(end=0, latest=FEWEST_ROUNDS * 5, clock=lambda: 0.0)
    assert measure.time_interleaved(benchmark, machine.step(3), {"rival": machine.step(2)}, share) is not None
    with pytest.raises(pytest.skip.Exception, match="--minutes N gives more"):
        measure.time_interleaved(benchmark, machine.step(3), {"rival": machine.step(2.1)}, share)


def test_a_rival_has_the_others_beside_it():
    timing = measure.Timing([4.0, 8.0], {"a": [2.0, 4.0], "b": [1.0, 1.0]}, 1).of("a", "own")
    assert timing.own_s == [2.0, 4.0]
    assert timing.ratios == {"own": 0.5, "b": 3.0}
