"""The only clock and the only counters of the benchmarks: time, memory and arithmetic."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import sub, truediv
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from benchmarks.harness.schedule import Share
from litevae.cost import multiply_accumulates, parameter_count, peak_tensor_bytes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# tf32: float32 tensors, convolutions and matrix products with 10 bits of mantissa, which only a GPU has.
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
if DEVICE.type != "cuda":
    del DTYPES["tf32"]
BEYOND_CACHE_BYTES = 256 * 2**20  # more than the last-level cache of a GPU (H200: 60 MB) or of most CPUs
ROUND_S = 0.002  # a round repeats a shorter step until it lasts this long
HOST_SHARE = 0.8  # of a row's time: with more it is marked
SLOW_S = 0.5  # a longer step has no warm-up round
MIB = 2**20

Step = Callable[[], object]


def clock() -> float:
    """Seconds, read once the device has finished what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, as torch's CUDA allocator does, so that no row pays another one's page faults.

    All memory comes from the heap, however large, and the heap is never trimmed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


@dataclass(frozen=True)
class Timing:
    """One row's rounds, in seconds a call, and beside them each rival's time right after every one of them."""

    own_s: Sequence[float]
    rivals_s: Mapping[str, Sequence[float]]
    iterations: int
    host_s: float | None = None
    """Of a call, until the device has been given all of it; None where the host itself computes, and of slow calls."""

    @property
    def measures_host(self) -> bool:
        """Whether the row's time is rather the host's than the device's."""
        return self.host_s is not None and self.host_s > HOST_SHARE * self.median_s

    @property
    def rounds(self) -> int:
        return len(self.own_s)

    @property
    def median_s(self) -> float:
        return statistics.median(self.own_s)

    @property
    def quartiles_s(self) -> tuple[float, float] | None:
        """None of a single round."""
        if self.rounds == 1:
            return None
        low, _, high = statistics.quantiles(self.own_s, n=4, method="inclusive")
        return low, high

    @property
    def iqr_ms(self) -> float | None:
        return None if self.quartiles_s is None else 1e3 * (self.quartiles_s[1] - self.quartiles_s[0])

    @property
    def ratios(self) -> Mapping[str, float]:
        """By rival: the median over the rounds of (row's time / rival's time in that round)."""
        return {name: _median_of(truediv, self.own_s, times) for name, times in self.rivals_s.items()}

    def images_per_second(self, batch: int) -> dict[str, float | None]:
        iqr = None if self.quartiles_s is None else batch / self.quartiles_s[0] - batch / self.quartiles_s[1]
        return {"img_per_s": batch / self.median_s, "iqr_img_per_s": iqr, "rounds": self.rounds}

    def of(self, name: str, own: str) -> Timing:
        """The rounds of a rival; among its own rivals the row itself is called `own`."""
        others = {own: self.own_s, **self.rivals_s}
        return Timing(others.pop(name), others, self.iterations)

    def difference_s(self, minuend: str, subtrahend: str) -> float:
        """The median over the rounds of one rival's time less another's; "own" is the row itself."""
        times = {"own": self.own_s, **self.rivals_s}
        return _median_of(sub, times[minuend], times[subtrahend])


def _median_of(operation: Callable[[float, float], float], left: Sequence[float], right: Sequence[float]) -> float:
    return statistics.median(map(operation, left, right))


@dataclass(frozen=True)
class Round:
    """A step that is warm, and how often a round calls it."""

    step: Step
    calls: int
    expected_s: float


def warmed(step: Step, share: Share, first_s: float | None = None) -> Round:
    """The first calls of `step`: compilation, allocation, and how long a round will take.

    `first_s`: the first call was made already, and took so long.
    """
    seconds = seconds_per_call(step, 1) if first_s is None else first_s
    if seconds < SLOW_S or share.spares(seconds):
        seconds = seconds_per_call(step, 1)
    if seconds < ROUND_S:  # one call of a short step is a poor guess of the next ones
        seconds = seconds_per_call(step, math.ceil(ROUND_S / max(seconds, 1e-6)))
    calls = max(1, math.ceil(ROUND_S / max(seconds, 1e-6)))
    return Round(step, calls, seconds * calls)


def time_interleaved(
    benchmark: BenchmarkFixture, step: Step | Round, rivals: Mapping[str, Step | Round], share: Share
) -> Timing | None:
    """Time `step`, and each rival once after every round of it, so that all of them meet the same machine.

    The rounds are pytest-benchmark's; a round is as many calls as last `ROUND_S`, between two readings of `clock`
    (mark the test with `timer=clock`). The rivals run in its untimed teardown and are timed there in the same way.
    As many rounds as fit into the share; the test is skipped where the fewest do not. None under --benchmark-disable,
    where `step` just runs once.
    """
    if benchmark.disabled:
        benchmark.pedantic(step.step if isinstance(step, Round) else step)
        return None
    own, *others = (one if isinstance(one, Round) else warmed(one, share) for one in (step, *rivals.values()))
    rival_times: dict[str, list[float]] = {name: [] for name in rivals}

    def time_rivals() -> None:
        for rival, times in zip(others, rival_times.values(), strict=True):
            times.append(seconds_per_call(rival.step, rival.calls))

    expected_s = own.expected_s + sum(rival.expected_s for rival in others)
    if reason := share.lacks(expected_s):
        pytest.skip(reason)
    rounds, warmup_rounds = share.rounds(expected_s), int(expected_s < SLOW_S)
    benchmark.pedantic(own.step, rounds=rounds, iterations=own.calls, warmup_rounds=warmup_rounds, teardown=time_rivals)
    assert benchmark.stats is not None
    own_s = [float(seconds) for seconds in benchmark.stats.stats.data]
    # The rivals also ran after the warm-up round; with several calls a round, once more after the last.
    rivals_s = {name: times[warmup_rounds : len(own_s) + warmup_rounds] for name, times in rival_times.items()}
    return Timing(own_s, rivals_s, own.calls, host_seconds(own.step) if own.expected_s < SLOW_S else None)


def host_seconds(step: Step) -> float | None:
    """What `step` takes the host until it returns, with nothing waiting in the device's queue."""
    if DEVICE.type != "cuda":
        return None
    taken = []
    for _ in range(5):
        start = clock()
        step()
        taken.append(time.perf_counter() - start)
    return min(taken)


def seconds_per_call(step: Step, calls: int) -> float:
    start = clock()
    for _ in range(calls):
        step()
    return (clock() - start) / calls


@functools.cache
def seconds_a_gmac(dtype: torch.dtype) -> float:
    """What 10^9 multiply-accumulates take here in a convolution as most are in the large rows: 3x3, 128 to 128
    channels, NCHW."""
    convolution = nn.Conv2d(128, 128, 3, padding=1, device=DEVICE, dtype=dtype)
    image = torch.randn(1, 128, 128, 128, device=DEVICE).to(dtype)
    with torch.no_grad():
        seconds = min(seconds_per_call(lambda: convolution(image), 1) for _ in range(3))
    return seconds / (multiply_accumulates(convolution, image) / 1e9)


def beyond_cache(make: Callable[[], Any]) -> list[Any]:
    """More inputs of one kind than a cache holds. `make` returns a tensor, or a tuple or list with tensors in it."""
    first = make()
    input_bytes = sum(leaf.numel() * leaf.element_size() for leaf in tree_iter(first) if isinstance(leaf, Tensor))
    return [first, *(make() for _ in range(math.ceil(BEYOND_CACHE_BYTES / input_bytes)))]


def consuming(function: Callable[[Any], object], inputs: Iterator[Any]) -> Step:
    """A step that gives `function` the next input. The result is freed inside the step, as a caller would free it."""

    def step() -> None:
        function(next(inputs))

    return step


def peak_allocated_bytes(step: Step) -> int:
    """Most bytes that one `step` has from torch's allocator at once, beside what was allocated before it.

    What operations allocate inside themselves counts, unless they do not ask torch for it (oneDNN's scratch memory on a
    CPU). CUDA: the caching allocator's own statistics. CPU: the allocations and frees that torch's profiler reports.
    """
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.autograd.profiler.profile(profile_memory=True, use_kineto=True) as profile:
        step()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    running = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(running, default=0)


def costs(model: nn.Module, sample: Tensor) -> dict[str, float]:
    """What is the same on every machine, of meta tensors: parameters, and the arithmetic for `sample`."""
    return {"parameters_m": parameter_count(model) / 1e6, "gmac": multiply_accumulates(model, sample) / 1e9}


def live_mb(function: Callable[..., object], batch: Tensor, model: nn.Module) -> float:
    """Most MB (10^6 bytes) alive at once in `function(batch)`: the batch, what is made of it, `model`'s parameters."""
    return peak_tensor_bytes(function, batch, held=model.parameters()) / 1e6


def cuda_mib(model: nn.Module, batch: Tensor, step: Step) -> float:
    """torch.cuda.max_memory_allocated during a step, without what belongs to other rows."""
    own = sum(tensor.numel() * tensor.element_size() for tensor in (batch, *model.parameters()))
    return (own + peak_allocated_bytes(step)) / MIB
