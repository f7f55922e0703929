"""What does self-modulation cost on top of the convolution, and what does the paper's per-sample form cost?

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses

Two tables, forward+backward, batch 16, 256 -> 256 channels, 32x32, 3x3, padding 1, float32:

    smc_conv2d    a step: output, gradients of x, weight and scales (conv2d: of x and weight)
    smc_weight    the weight of Eq. 3 alone, forward and forward+backward, beside a copy of the weight (2.4 MB)

Bytes of smc_weight, in units of the weight, that cannot be avoided: copy and forward 2 (read 1, write 1);
forward+backward 5 (the backward reads the weight and the gradient of its result, writes one gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import measure
from benchmarks.available import missing_backend, missing_compiler
from benchmarks.measure import DEVICE, MIB, relative_error
from benchmarks.report import Column, Results, Table
from litevae_kernels import backends, smc_conv2d, smc_weight

CHANNELS = 256
X_SHAPE, WEIGHT_SHAPE = (16, CHANNELS, 32, 32), (CHANNELS, CHANNELS, 3, 3)
EPS = 1e-8
TOLERANCE = 1e-4  # of float32 sums over 16 x 32 x 32 positions in another order
WEIGHT_BYTES = 4 * CHANNELS * CHANNELS * 9

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


def our_weight(backend: str | None = None) -> Weight:
    return lambda weight, scales: smc_weight(weight, scales, eps=EPS, backend=backend)


def gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor) -> list[Tensor]:
    """Output of `function(*inputs)`, then the gradients of the inputs that it depends on."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    found = torch.autograd.grad(output, leaves, grad, allow_unused=True)
    return [output.detach(), *(gradient for gradient in found if gradient is not None)]


def copying_weight() -> Weight:
    target = torch.empty(WEIGHT_SHAPE, device=DEVICE)
    return lambda weight, scales: target.copy_(weight)


@dataclass(frozen=True)
class Row:
    """`make()` gives the function to time. The yardstick computes something else, on purpose."""

    label: str
    make: Callable[[], Callable[..., Tensor]]
    unavailable: str = ""
    is_yardstick: bool = False
    backward: bool = True


CONVOLUTION_ROWS = [
    Row("conv2d", lambda: bare_conv2d, is_yardstick=True),
    *(Row(f"smc_conv2d, {name}", partial(our_conv2d, name), missing_backend(name)) for name in backends()),
    Row("formula, torch.compile", lambda: torch.compile(formula_conv2d), missing_compiler()),
    Row("the paper's way: per-sample grouped conv2d", lambda: per_sample_conv2d),
]


def _weight_rows(label: str, make: Callable[[], Weight], unavailable: str = "") -> list[Row]:
    return [
        Row(label, make, unavailable, backward=False),
        Row(f"{label}, forward+backward", make, unavailable),
    ]


WEIGHT_ROWS = [
    Row("copy of the weight", copying_weight, is_yardstick=True, backward=False),
    *(
        row
        for name in backends()
        for row in _weight_rows(f"smc_weight, {name}", partial(our_weight, name), missing_backend(name))
    ),
    *_weight_rows("formula, eager", lambda: formula),
    *_weight_rows("formula, torch.compile", lambda: torch.compile(formula), missing_compiler()),
]

TIMES = [Column("time_ms", "median, ms", ".3f"), Column("iqr_ms", "IQR, ms", ".3f")]
CONVOLUTION_TABLE = Table(
    name="smc_conv2d",
    title="Self-modulated convolution, forward+backward",
    settings={"input": "x".join(map(str, X_SHAPE)), "weight": "x".join(map(str, WEIGHT_SHAPE)), "dtype": "float32"},
    columns=[
        Column("row", "operation"),
        *TIMES,
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
    settings={"weight": "x".join(map(str, WEIGHT_SHAPE)), "dtype": "float32"},
    columns=[
        Column("row", "operation"),
        *TIMES,
        Column("gb_per_s", "GB/s", ".1f"),
        Column("to_copy", "time / copy"),
        Column("rounds", "rounds", "d"),
    ],
    order=[row.label for row in WEIGHT_ROWS],
    notes=[
        "GB/s counts the bytes that cannot be avoided (bench_smc_conv2d.py). Launches and autograd are in the time."
    ],
)


def check(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Refuse to time a wrong result."""
    for index, (result, correct) in enumerate(zip(actual, expected, strict=True)):
        error = relative_error(result, correct)
        if error > TOLERANCE:
            raise AssertionError(f"result {index}: relative error {error:.1e} is above {TOLERANCE:.0e}")


def _skip_unavailable(table: Table, row: Row, results: Results) -> None:
    if row.unavailable:
        results.skip(table, row.label, row.unavailable)
        pytest.skip(row.unavailable)


@pytest.mark.benchmark(group="smc_conv2d", timer=measure.clock)
@pytest.mark.parametrize("row", CONVOLUTION_ROWS, ids=lambda row: row.label)
def test_smc_conv2d(row: Row, benchmark: BenchmarkFixture, results: Results) -> None:
    _skip_unavailable(CONVOLUTION_TABLE, row, results)
    torch.manual_seed(0)
    weight, scales = torch.randn(WEIGHT_SHAPE, device=DEVICE), torch.rand(CHANNELS, device=DEVICE) + 0.5
    inputs = measure.rotating(lambda: (torch.randn(X_SHAPE, device=DEVICE), torch.randn(X_SHAPE, device=DEVICE)))

    def training(convolution: Convolution) -> Callable[[tuple[Tensor, Tensor]], list[Tensor]]:
        return lambda pair: gradients(convolution, (pair[0], weight, scales), pair[1])

    function, pair = training(row.make()), next(inputs)
    if not row.is_yardstick:
        check(function(pair), training(our_conv2d("reference"))(pair))
    step = measure.consuming(function, inputs)
    rivals = {"conv2d": measure.consuming(training(bare_conv2d), inputs)}
    timing = measure.time_interleaved(benchmark, step, rivals, budget_s=6.0)
    if timing is None:
        return
    benchmark.extra_info.update(
        time_ms=timing.median_s * 1e3,
        iqr_ms=timing.iqr_s * 1e3,
        to_conv2d=timing.ratios["conv2d"],
        extra_memory_mib=measure.peak_allocated_bytes(step) / MIB,
        rounds=timing.rounds,
    )
    results.add(CONVOLUTION_TABLE, row.label, benchmark.extra_info)


@pytest.mark.benchmark(group="smc_weight", timer=measure.clock)
@pytest.mark.parametrize("row", WEIGHT_ROWS, ids=lambda row: row.label)
def test_smc_weight(row: Row, benchmark: BenchmarkFixture, results: Results) -> None:
    _skip_unavailable(WEIGHT_TABLE, row, results)
    torch.manual_seed(0)
    scales = torch.rand(CHANNELS, device=DEVICE) + 0.5
    inputs = measure.rotating(
        lambda: (torch.randn(WEIGHT_SHAPE, device=DEVICE), torch.randn(WEIGHT_SHAPE, device=DEVICE))
    )

    def running(function: Weight) -> Callable[[tuple[Tensor, Tensor]], list[Tensor]]:
        if row.backward:
            return lambda pair: gradients(function, (pair[0], scales), pair[1])
        return lambda pair: [function(pair[0], scales)]

    function, pair = running(row.make()), next(inputs)
    copy = copying_weight()
    if not row.is_yardstick:
        check(function(pair), running(our_weight("reference"))(pair))
    rivals = {"copy": measure.consuming(lambda pair: copy(pair[0], scales), inputs)}
    timing = measure.time_interleaved(benchmark, measure.consuming(function, inputs), rivals, budget_s=1.0)
    if timing is None:
        return
    benchmark.extra_info.update(
        time_ms=timing.median_s * 1e3,
        iqr_ms=timing.iqr_s * 1e3,
        gb_per_s=(5 if row.backward else 2) * WEIGHT_BYTES / timing.median_s / 1e9,
        to_copy=timing.ratios["copy"],
        rounds=timing.rounds,
    )
    results.add(WEIGHT_TABLE, row.label, benchmark.extra_info)
