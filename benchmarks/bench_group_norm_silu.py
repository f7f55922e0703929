"""The speed of GroupNorm and SiLU in one operator, beside a copy and the two one after the other.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

Inputs as LiteVAE-B's feature extraction meets them at 256x256 (channels x height x width: 32x128x128, 96x64x64,
192x32x32; with a skip, 96x64x64 twice), 32 groups, weight and bias in x's dtype. Batch 4 on a CPU; 256 on a GPU, where
smaller ones would fit into its cache, or take less time than it takes to launch them (bench_host_cost.py).

Bytes, in units of x and skip together, count two reads for every statistic, since all of a group must be read before
its first result can be written, whether or not the second read finds it in a cache:

    copy        2    of x alone: read 1, write 1
    forward     3    read x twice (statistics; result), write 1
    backward    5    read x and the gradient twice (sums; result), write 1
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import bandwidth, measure
from benchmarks.harness.available import missing_backend, missing_compiler
from benchmarks.harness.checks import UNIT_ROUNDOFF, check_close
from benchmarks.harness.directions import BACKWARD, FORWARD, Function, Sample, compiled, result, step, turns_of
from benchmarks.harness.measure import DEVICE
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import measures
from benchmarks.harness.schedule import Share
from litevae_kernels import backends, group_norm_silu

BATCH = 256 if DEVICE.type == "cuda" else 4
GROUPS = 32
EPS = 1e-6
UNITS = {FORWARD: 3, BACKWARD: 5}
# Sums in another order, whose roundings cancel; results and gradients that PyTorch rounds between the two operations.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 5 * UNIT_ROUNDOFF["bfloat16"]}


@dataclass(frozen=True)
class GroupNormCase:
    """What is normalised: x [B, C, H, W], and a skip of as many channels or none."""

    channels: int
    side: int
    dtype: torch.dtype
    memory_format: torch.memory_format
    skip: bool = False

    @property
    def label(self) -> str:
        skip = f" + skip {self.channels}" if self.skip else ""
        dtype = {torch.float32: "float32", torch.bfloat16: "bfloat16"}[self.dtype]
        layout = {torch.contiguous_format: "NCHW", torch.channels_last: "channels_last"}[self.memory_format]
        return f"{self.channels}{skip} x {self.side} x {self.side}, {dtype}, {layout}"

    def sample(self) -> Sample:
        """Inputs x, weight, bias, and skip if there is one; the gradient of the output."""
        channels = self.channels * (2 if self.skip else 1)
        x, skip, grad = self._images(self.channels), self._images(self.channels), self._images(channels)
        weight, bias = (torch.randn(channels, device=DEVICE).to(self.dtype) for _ in range(2))
        return Sample((x, weight, bias, *([skip] if self.skip else [])), (grad,))

    def _images(self, channels: int) -> Tensor:
        images = torch.randn(BATCH, channels, self.side, self.side, device=DEVICE)
        return images.to(self.dtype, memory_format=self.memory_format)

    def moved_bytes(self, direction: str) -> int:
        elements = BATCH * self.channels * (2 if self.skip else 1) * self.side**2
        return UNITS[direction] * elements * self.dtype.itemsize


@dataclass(frozen=True)
class GroupNormRow:
    case: GroupNormCase
    direction: str
    backend: str

    @property
    def label(self) -> str:
        return f"{self.direction}, {self.case.label}, {self.backend}"

    @property
    def unavailable(self) -> str:
        return missing_backend(self.backend)


def ours(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None = None, backend: str | None = None) -> Tensor:
    return group_norm_silu(x, GROUPS, weight, bias, EPS, skip=skip, backend=backend)


def one_after_the_other(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
    """GroupNorm of the concatenation, then SiLU, for eager and torch.compile."""
    joined = x if skip is None else torch.cat([x, skip], dim=1)
    return F.silu(F.group_norm(joined, GROUPS, weight, bias, EPS))


CASES = [
    *(
        GroupNormCase(32, 128, dtype, layout)
        for dtype in TOLERANCES
        for layout in (torch.contiguous_format, torch.channels_last)
    ),
    *(
        GroupNormCase(channels, side, torch.float32, layout, skip)
        for channels, side, skip in ((96, 64, False), (192, 32, False), (96, 64, True))
        for layout in (torch.contiguous_format, torch.channels_last)
    ),
]
ROWS = [
    GroupNormRow(case, direction, name)
    for case in CASES
    for direction in UNITS
    for name in backends()
    if name != "reference" or case in CASES[:2]
]
TABLE = Table(
    name="group_norm_silu",
    title="GroupNorm and SiLU",
    settings={"batch": BATCH, "groups": GROUPS},
    columns=[
        Column("row", "operation"),
        *bandwidth.COLUMNS,
        Column("eager_to_row", "eager / row"),
        Column("compiled_to_row", "torch.compile / row"),
        Column("rounds", "rounds", "d"),
    ],
    order=[row.label for row in ROWS],
    notes=[
        *bandwidth.NOTES,
        "Forward counts two reads and one write, backward four reads and one write. A share above 100 means that a "
        "cache answered some of the second reads.",
        "Eager: PyTorch's GroupNorm, then SiLU (before them, where there is a skip, the concatenation); torch.compile: "
        "the same three compiled. The ratios are medians over rounds of their time, right after the row's, and the "
        "row's: how many times faster the row is.",
    ],
)


@lru_cache(maxsize=1)
def samples_of(case: GroupNormCase) -> list[Sample]:
    torch.manual_seed(0)
    return measure.beyond_cache(case.sample)


def check(row: GroupNormRow, function: Function, sample: Sample) -> None:
    """Refuse to time a wrong result: compare it with the reference backend's."""
    expected = result(row.direction, partial(ours, backend="reference"), sample)
    check_close(row.label, result(row.direction, function, sample), expected, TOLERANCES[row.case.dtype])


@measures(TABLE, ROWS, seconds=1.5)
@torch.no_grad()
def test_group_norm_silu(row: GroupNormRow, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    samples = samples_of(row.case)
    turns = turns_of(samples)
    functions: dict[str, Function] = {"own": partial(ours, backend=row.backend), "eager": one_after_the_other}
    if not missing_compiler():
        functions["compiled"] = compiled(one_after_the_other, row.case)
    steps = {}
    for name, function in functions.items():
        check(row, function, samples[0])
        steps[name] = step(row.direction, function, samples, turns)
    rivals = {bandwidth.COPY: bandwidth.copy_step([sample.inputs[0] for sample in samples], turns), **steps}
    timing = measure.time_interleaved(benchmark, rivals.pop("own"), rivals, share)
    if timing is None:
        return
    benchmark.extra_info.update(
        **bandwidth.speed(timing, row.case.moved_bytes(row.direction), samples[0].inputs[0]),
        eager_to_row=1 / timing.ratios["eager"],
        compiled_to_row=1 / timing.ratios["compiled"] if "compiled" in rivals else None,
        rounds=timing.rounds,
    )
    results.add(TABLE, row.label, benchmark.extra_info)
