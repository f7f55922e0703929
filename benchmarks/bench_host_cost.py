"""What a call costs on the host, beside PyTorch's own nearest operation.

Tensors of a few dozen elements, so that the time is that of the call: checks of arguments, choice of backend, dispatch,
allocation of the result, launches. Calls follow one another for 2 ms; with CUDA tensors the GPU keeps up with them and
is waited for once at the end. Once without gradients, and once with a graph, recorded and freed again.

Nearest are the operations that read and write the same shapes: a 2x2 average pooling; pixel_shuffle, which makes four
channels one of twice the sides; _weight_norm (a weight over the norms of its rows); conv2d; group_norm, then silu.

What a call costs on a GPU can be measured without one, but for the launch itself: a driver that runs nothing takes the
launches of Triton's kernels, of tensors of the CPU with the sizes of LiteVAE-B.
"""

import functools
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import measure
from benchmarks.harness.available import missing_backend, missing_package
from benchmarks.harness.checks import check_close
from benchmarks.harness.directions import FORWARD, Function, Sample, result
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import measures
from benchmarks.harness.schedule import Share
from litevae_kernels import dispatch, group_norm_silu, haar_dwt2d, haar_idwt2d, smc_conv2d, smc_weight
from litevae_kernels.backends import choose_backend

TOLERANCE = 1e-5  # of float32 sums in another order
BACKENDS = (("cpu", "cpu"), ("triton", "cuda"), ("cuda", "cuda"))  # and the device of the tensors


class Operator(NamedTuple):
    """`ours` takes the tensors of `shapes`, in this order, and backend=; `nearest` takes the tensors."""

    name: str
    ours: Function
    nearest_name: str
    nearest: Callable[..., Tensor]
    shapes: Sequence[Sequence[int]]


OPERATORS = (
    Operator("haar_dwt2d", haar_dwt2d, "avg_pool2d", lambda image: F.avg_pool2d(image, 2), [(1, 3, 8, 8)]),
    Operator("haar_idwt2d", haar_idwt2d, "pixel_shuffle", lambda packed: F.pixel_shuffle(packed, 2), [(1, 12, 4, 4)]),
    Operator(
        "smc_weight",
        lambda weight, norms, scales, backend: smc_weight(weight, scales, backend=backend),
        "_weight_norm",
        lambda weight, norms, scales: torch._weight_norm(weight, norms, 0),
        [(4, 3, 3, 3), (4, 1, 1, 1), (3,)],
    ),
    Operator(
        "smc_conv2d",
        lambda x, weight, scales, backend: smc_conv2d(x, weight, scales, padding=1, backend=backend),
        "conv2d",
        lambda x, weight, scales: F.conv2d(x, weight, padding=1),
        [(1, 3, 8, 8), (4, 3, 3, 3), (3,)],
    ),
    Operator(
        "group_norm_silu",
        lambda x, weight, bias, backend: group_norm_silu(x, 2, weight, bias, backend=backend),
        "silu(group_norm)",
        lambda x, weight, bias: F.silu(F.group_norm(x, 2, weight, bias, 1e-6)),
        [(1, 4, 4, 4), (4,), (4,)],
    ),
)


@dataclass(frozen=True)
class HostCostRow:
    operator: Operator
    backend: str
    device: str

    @property
    def label(self) -> str:
        return f"{self.operator.name}, {self.device} tensors, {self.backend}"

    @property
    def unavailable(self) -> str:
        return missing_backend(self.backend, self.device)

    def ours(self) -> Function:
        """As a user calls it: the default backend is not named."""
        default = self.backend == choose_backend(None, self.device)
        return partial(self.operator.ours, backend=None if default else self.backend)

    def tensors(self, requires_grad: bool) -> list[Tensor]:
        torch.manual_seed(0)
        return [torch.rand(*shape, device=self.device).requires_grad_(requires_grad) for shape in self.operator.shapes]


@dataclass(frozen=True)
class LaunchRow:
    """A public call by `backend="triton"` on channels_last tensors of `shapes`, up to the launches."""

    name: str
    call: Callable[..., object]
    shapes: Sequence[Sequence[int]]

    @property
    def label(self) -> str:
        return f"{self.name}, triton without a GPU"

    @property
    def unavailable(self) -> str:
        if measure.DEVICE.type == "cuda":
            return "this machine has a GPU"
        if os.environ.get("TRITON_INTERPRET", "0") != "0":
            return "TRITON_INTERPRET is set: the kernels are interpreted"
        return missing_package("triton")

    def tensors(self, requires_grad: bool) -> list[Tensor]:
        made = [torch.rand(*shape) for shape in self.shapes]
        dense = [one.contiguous(memory_format=torch.channels_last) if one.ndim == 4 else one for one in made]
        return [one.requires_grad_(requires_grad) for one in dense]


LAUNCH_ROWS = [
    *(
        LaunchRow(
            f"group_norm_silu of 96x{side}x{side}",
            lambda x, weight, bias: group_norm_silu(x, 32, weight, bias, backend="triton"),
            [(1, 96, side, side), (96,), (96,)],
        )
        for side in (8, 64)
    ),
    LaunchRow(
        "haar_dwt2d of three levels",
        lambda image: haar_dwt2d(image, 3, scaling="mean", backend="triton"),
        [(1, 3, 256, 256)],
    ),
    LaunchRow(
        "smc_weight of 512x512x3x3",
        lambda weight, scales: smc_weight(weight, scales, backend="triton"),
        [(512, 512, 3, 3), (512,)],
    ),
]
ROWS = [HostCostRow(operator, backend, device) for backend, device in BACKENDS for operator in OPERATORS]
TABLE = Table(
    name="host_cost",
    title="Cost of a call on the host",
    settings={"tensors": "some dozens of float32; without a GPU, as many as named"},
    columns=[
        Column("row", "operation"),
        Column("time_us", "median, us", ".1f"),
        Column("nearest", "PyTorch's nearest"),
        Column("nearest_us", "us", ".1f"),
        Column("difference_us", "difference, us", ".1f"),
        Column("grad_us", "with grad, us", ".1f"),
        Column("nearest_grad_us", "PyTorch's, us", ".1f"),
        Column("grad_difference_us", "difference, us", ".1f"),
        Column("launches", "launches", "d"),
        Column("rounds", "rounds", "d"),
    ],
    order=[*(row.label for row in ROWS), *(row.label for row in LAUNCH_ROWS)],
    notes=[
        "With grad: the tensors require gradients, and the call records its graph; no backward.",
        "Differences are medians over rounds of the difference between neighbours.",
        "smc_conv2d does conv2d's work and makes the weight before it: its difference contains smc_weight.",
        "Without a GPU: all but the choice of the backend, Triton's launcher in C and CUDA's driver.",
    ],
)


@measures(TABLE, ROWS, seconds=2.0)
def test_host_cost(row: HostCostRow, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    ours, plain, leaves = row.ours(), row.tensors(False), row.tensors(True)
    expected = result(FORWARD, partial(row.operator.ours, backend="reference"), Sample(plain))
    check_close(row.label, result(FORWARD, ours, Sample(plain)), expected, TOLERANCE)
    rivals = {
        "nearest": lambda: row.operator.nearest(*plain),
        "grad": lambda: ours(*leaves),
        "nearest, grad": lambda: row.operator.nearest(*leaves),
    }
    timing = measure.time_interleaved(benchmark, lambda: ours(*plain), rivals, share)
    if timing is None:
        return
    median_us = {name: 1e6 * statistics.median(times) for name, times in timing.rivals_s.items()}
    benchmark.extra_info.update(
        time_us=1e6 * timing.median_s,
        nearest=row.operator.nearest_name,
        nearest_us=median_us["nearest"],
        difference_us=1e6 * timing.difference_s("own", "nearest"),
        grad_us=median_us["grad"],
        nearest_grad_us=median_us["nearest, grad"],
        grad_difference_us=1e6 * timing.difference_s("grad", "nearest, grad"),
        rounds=timing.rounds,
    )
    results.add(TABLE, row.label, benchmark.extra_info)


@measures(TABLE, LAUNCH_ROWS, seconds=2.0)
def test_host_cost_without_a_gpu(row: LaunchRow, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    plain, leaves = row.tensors(False), row.tensors(True)
    with launching() as driver:
        row.call(*plain)
        before = driver.launched
        row.call(*plain)
        launches = driver.launched - before
        grad = {"grad": lambda: row.call(*leaves)}
        timing = measure.time_interleaved(benchmark, lambda: row.call(*plain), grad, share)
    if timing is None:
        return
    benchmark.extra_info.update(
        time_us=1e6 * timing.median_s,
        grad_us=1e6 * statistics.median(timing.rivals_s["grad"]),
        launches=launches,
        rounds=timing.rounds,
    )
    results.add(TABLE, row.label, benchmark.extra_info)


@contextmanager
def launching() -> Iterator[Any]:
    """Calls by backend="triton" launch into the driver that is given, which counts them."""
    driver = _driver()
    with driver.active(), mock.patch.object(dispatch, "choose_backend", _triton):
        yield driver


def _triton(*choice: object) -> str:
    return "triton"


@functools.cache
def _driver() -> Any:
    from benchmarks.harness.recording_driver import RecordingDriver

    return RecordingDriver(keeps=False)
