"""What self-modulation costs on top of the convolution, and what the paper's per-sample form costs.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses

Two tables, float32, 3x3 kernels:

    smc_conv2d    a training step of 16x256x32x32 -> 256 channels, padding 1: output, gradients of x, weight and
                  scales (conv2d: of x and weight)
    smc_weight    the weight of Eq. 3 alone, beside a copy of the weight: 256x256x3x3 (2.4 MB) on a CPU, 8192x512x3x3
                  (151 MB) on a GPU, where a small one takes less time than its launch (bench_host_cost.py)

Bytes of smc_weight, in units of the weight, that cannot be avoided:

    copy, forward       2      read 1, write 1 (to bfloat16: 1.5)
    backward            3      read the weight and the gradient of its result, write one gradient
    forward+backward    5
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import bandwidth, measure
from benchmarks.harness.available import missing_backend, missing_compiler
from benchmarks.harness.checks import UNIT_ROUNDOFF, check_close
from benchmarks.harness.directions import (
    BACKWARD,
    BOTH,
    FORWARD,
    Function,
    Sample,
    compiled,
    labelled,
    result,
    step,
    turns_of,
)
from benchmarks.harness.measure import DEVICE, MIB
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import measures
from benchmarks.harness.schedule import Share
from litevae_kernels import backends, smc_conv2d, smc_weight

CHANNELS = 256
X_SHAPE, WEIGHT_SHAPE = (16, CHANNELS, 32, 32), (CHANNELS, CHANNELS, 3, 3)
ALONE_SHAPE = (8192, 512, 3, 3) if DEVICE.type == "cuda" else WEIGHT_SHAPE
EPS = 1e-8
TOLERANCE = 1e-4  # sums over 16 x 32 x 32 positions in another order: 12 sqrt(16,384) unit roundoffs
# The weight alone: sums of 4,608 squares in another order; a result in float32 that either side rounds once.
ROUNDING = {torch.float32: 84 * UNIT_ROUNDOFF["float32"], torch.bfloat16: 2 * UNIT_ROUNDOFF["bfloat16"]}

Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, weight, scales) -> output
Weight = Callable[[Tensor, Tensor], Tensor]  # (weight, scales) -> the modulated weight


def formula(weight: Tensor, scales: Tensor) -> Tensor:
    """Eq. 3 as one would write it: [O, I, 3, 3] -> [O, I, 3, 3]."""
    modulated = weight * scales[None, :, None, None]
    return modulated * torch.rsqrt(modulated.square().sum(dim=(1, 2, 3), keepdim=True) + EPS)


def formula_conv2d(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return F.conv2d(x, formula(weight, scales), padding=1)


def per_sample_conv2d(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """The paper's form (Appendix G): a weight for every sample and one grouped convolution over batch x channels."""
    batch, channels, height, width = x.shape
    styles = scales.expand(batch, channels)
    weights = weight[None] * styles[:, None, :, None, None]  # [B, O, I, 3, 3]
    weights = weights * torch.rsqrt(weights.square().sum(dim=(2, 3, 4), keepdim=True) + EPS)
    grouped = F.conv2d(x.reshape(1, -1, height, width), weights.flatten(0, 1), padding=1, groups=batch)
    return grouped.reshape(batch, -1, height, width)


def bare_conv2d(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def our_conv2d(backend: str | None = None) -> Convolution:
    return lambda x, weight, scales: smc_conv2d(x, weight, scales, padding=1, eps=EPS, backend=backend)


def our_weight(backend: str | None = None, dtype: torch.dtype | None = None) -> Weight:
    return lambda weight, scales: smc_weight(weight, scales, eps=EPS, dtype=dtype, backend=backend)


def formula_to_bfloat16(weight: Tensor, scales: Tensor) -> Tensor:
    return formula(weight, scales).bfloat16()


@dataclass(frozen=True)
class SmcRow:
    """`function` in `direction`. The yardstick computes something else, on purpose."""

    label: str
    function: Function
    unavailable: str = ""
    direction: str = BOTH
    compile: bool = False
    is_yardstick: bool = False
    dtype: torch.dtype = torch.float32

    def built(self) -> Function:
        return compiled(self.function, "float32") if self.compile else self.function


CONVOLUTION_ROWS = [
    SmcRow("conv2d", bare_conv2d, is_yardstick=True),
    *(SmcRow(f"smc_conv2d, {name}", our_conv2d(name), missing_backend(name)) for name in backends()),
    SmcRow("formula, torch.compile", formula_conv2d, missing_compiler(), compile=True),
    SmcRow("the paper's way: per-sample grouped conv2d", per_sample_conv2d),
]


def _weight_rows(label: str, function: Weight, unavailable: str = "", compile: bool = False) -> list[SmcRow]:
    directions = (FORWARD, BACKWARD, BOTH)
    return [SmcRow(labelled(label, direction), function, unavailable, direction, compile) for direction in directions]


BFLOAT16: dict[str, Any] = {"direction": FORWARD, "dtype": torch.bfloat16}
WEIGHT_ROWS = [
    SmcRow("copy of the weight", lambda weight, scales: bandwidth.copy(weight), direction=FORWARD, is_yardstick=True),
    *(
        row
        for name in backends()
        for row in _weight_rows(f"smc_weight, {name}", our_weight(name), missing_backend(name))
    ),
    *_weight_rows("formula, eager", formula),
    *_weight_rows("formula, torch.compile", formula, missing_compiler(), compile=True),
    *(
        SmcRow(f"smc_weight to bfloat16, {name}", our_weight(name, torch.bfloat16), missing_backend(name), **BFLOAT16)
        for name in backends()
    ),
    SmcRow("formula to bfloat16, torch.compile", formula_to_bfloat16, missing_compiler(), compile=True, **BFLOAT16),
]


def moved_bytes(row: SmcRow) -> int:
    """What cannot be avoided: the docstring's table."""
    elements = torch.Size(ALONE_SHAPE).numel()
    forward, backward = elements * (4 + row.dtype.itemsize), elements * 4 * 3
    return {FORWARD: forward, BACKWARD: backward, BOTH: forward + backward}[row.direction]


CONVOLUTION_TABLE = Table(
    name="smc_conv2d",
    title="Self-modulated convolution, forward+backward",
    settings={"input": "x".join(map(str, X_SHAPE)), "weight": "x".join(map(str, WEIGHT_SHAPE)), "dtype": "float32"},
    columns=[
        Column("row", "operation"),
        Column("time_ms", "median, ms", ".3f"),
        Column("iqr_ms", "IQR, ms", ".3f"),
        Column("to_conv2d", "time / conv2d"),
        Column("extra_memory_mib", "extra memory, MiB", ".1f"),
        Column("rounds", "rounds", "d"),
    ],
    order=[row.label for row in CONVOLUTION_ROWS],
    notes=[
        "The ratio is the median over rounds of the row's time and conv2d's right after it; conv2d's own is noise.",
        "Extra memory: the most that the step holds from torch's allocator at once, beside its inputs.",
    ],
)
WEIGHT_TABLE = Table(
    name="smc_weight",
    title="The weight of self-modulated convolution, alone",
    settings={"weight": "x".join(map(str, ALONE_SHAPE)), "dtype": "float32"},
    columns=[
        Column("row", "operation"),
        *bandwidth.COLUMNS,
        Column("to_copy", "time / copy"),
        Column("rounds", "rounds", "d"),
    ],
    order=[row.label for row in WEIGHT_ROWS],
    notes=[*bandwidth.NOTES, "Launches and autograd are in the time."],
)


def check(row: SmcRow, function: Function, reference: Function, sample: Sample, tolerance: float) -> None:
    """Refuse to time a wrong result."""
    if not row.is_yardstick:
        expected = result(row.direction, reference, sample)
        check_close(row.label, result(row.direction, function, sample), expected, tolerance)


@lru_cache(maxsize=1)
def weight_samples() -> list[Sample]:
    torch.manual_seed(0)
    scales = torch.rand(ALONE_SHAPE[1], device=DEVICE) + 0.5
    return measure.beyond_cache(
        lambda: Sample((torch.randn(ALONE_SHAPE, device=DEVICE), scales), (torch.randn(ALONE_SHAPE, device=DEVICE),))
    )


@measures(CONVOLUTION_TABLE, CONVOLUTION_ROWS, seconds=5.0)
@torch.no_grad()
def test_smc_conv2d(row: SmcRow, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    torch.manual_seed(0)
    weight, scales = torch.randn(WEIGHT_SHAPE, device=DEVICE), torch.rand(CHANNELS, device=DEVICE) + 0.5
    samples = measure.beyond_cache(
        lambda: Sample((torch.randn(X_SHAPE, device=DEVICE), weight, scales), (torch.randn(X_SHAPE, device=DEVICE),))
    )
    function, turns = row.built(), turns_of(samples)
    check(row, function, our_conv2d("reference"), samples[0], TOLERANCE)
    own = step(row.direction, function, samples, turns)
    rivals = {"conv2d": step(BOTH, bare_conv2d, samples, turns)}
    timing = measure.time_interleaved(benchmark, own, rivals, share)
    if timing is None:
        return
    benchmark.extra_info.update(
        time_ms=timing.median_s * 1e3,
        iqr_ms=timing.iqr_ms,
        to_conv2d=timing.ratios["conv2d"],
        extra_memory_mib=measure.peak_allocated_bytes(own) / MIB,
        rounds=timing.rounds,
    )
    results.add(CONVOLUTION_TABLE, row.label, benchmark.extra_info)


@measures(WEIGHT_TABLE, WEIGHT_ROWS, seconds=1.0)
@torch.no_grad()
def test_smc_weight(row: SmcRow, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    samples = weight_samples()
    function, turns = row.built(), turns_of(samples)
    check(row, function, our_weight("reference", row.dtype), samples[0], ROUNDING[row.dtype])
    rivals = {bandwidth.COPY: bandwidth.copy_step([sample.inputs[0] for sample in samples], turns)}
    timing = measure.time_interleaved(benchmark, step(row.direction, function, samples, turns), rivals, share)
    if timing is None:
        return
    benchmark.extra_info.update(
        **bandwidth.speed(timing, moved_bytes(row), samples[0].inputs[0]),
        to_copy=timing.ratios[bandwidth.COPY],
        rounds=timing.rounds,
    )
    results.add(WEIGHT_TABLE, row.label, benchmark.extra_info)
