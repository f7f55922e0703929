"""Which runtime is fastest on a CPU: this package, or ONNX Runtime and OpenVINO with the model that it exports?

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses

Encoders S and B from an image to the mean of its latent, decoders with GroupNorm and with SMC (folded) from a latent to
the image. The ONNX file is exported for the one size that is timed, so that the runtimes may plan for it.
"""

import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import measure
from benchmarks.harness.available import emulated
from benchmarks.harness.checks import check_close, check_rounding
from benchmarks.harness.measure import DEVICE
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import Group, measures
from benchmarks.harness.schedule import Share
from benchmarks.harness.turns import Turns
from benchmarks.rivals.runtimes import RUNTIMES
from litevae.exporting.graphs import GRAPHS, Graph, prepared, traced
from litevae.exporting.writers import write_onnx
from litevae.models.litevae import LiteVAE

OURS, OURS_BFLOAT16 = "this package", "this package, bfloat16"
ROWS = (OURS, *RUNTIMES, OURS_BFLOAT16)
FLOAT32_NETWORK = 1e-4
SIDES = (256, 128)  # of the image: the largest that a run has time for
CALLS = 5


class Case(NamedTuple):
    """A part of a model, which every row runs."""

    part: str
    size: str
    batch: int
    arguments: dict[str, Any] = {}  # noqa: RUF012  # read alone


CASES = {
    "encoder S": Case("encoder", "S", 4),
    "encoder B": Case("encoder", "B", 4),
    "decoder, group_norm": Case("decoder", "B", 1),
    "decoder, smc folded": Case("decoder", "B", 1, {"decoder_normalization": "smc"}),
}

TABLE = Table(
    name="runtimes",
    title="Runtimes on a CPU",
    settings={"mode": "one ONNX file for the column's resolution and batch, opset 20; as many threads as PyTorch has"},
    columns=[
        Column("row", "part, runtime"),
        Column("side", "resolution", "d"),
        Column("batch", "batch", "d"),
        Column("img_per_s", "img/s", ".4g"),
        Column("iqr_img_per_s", "IQR", ".2g"),
        Column("speed_to_ours", "/ this package"),
        Column("rounds", "rounds", "d"),
    ],
    order=[f"{case}, {row}" for case in CASES for row in ROWS],
    notes=[
        "/ this package: in float32, from the median over rounds of the row's time and the package's right after it.",
        "This package: `optimize_for_inference()`, eager. OpenVINO: PERFORMANCE_HINT=LATENCY; in float32 by "
        "INFERENCE_PRECISION_HINT=f32, which it does not take by itself on CPUs with bfloat16.",
    ],
)


@functools.cache
def graph_of(case: str, dtype: torch.dtype) -> Graph:
    """The part as it is exported, with random weights that are the same in every precision."""
    torch.manual_seed(0)
    made = CASES[case]
    return GRAPHS[made.part](prepared(LiteVAE.from_preset(made.size, **made.arguments), dtype)).eval()


def batch_of(case: str, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    made = CASES[case]
    if made.part == "encoder":
        return torch.rand(made.batch, 3, side, side, generator=generator) * 2 - 1
    return torch.randn(made.batch, 4, side // 8, side // 8, generator=generator)


def ours(case: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    graph = graph_of(case, dtype)
    return lambda batch: graph(batch.to(dtype))[0].float()


def check(name: str, precision: str, result: Tensor, case: str, batch: Tensor) -> None:
    """Refuse to time a wrong result: it is the package's in float32, or as far from it as its bfloat16."""
    exact = ours(case, torch.float32)(batch)
    if precision == "float32":
        check_close(name, [result], [exact], FLOAT32_NETWORK)
    else:
        check_rounding(name, precision, [result], [ours(case, torch.bfloat16)(batch)], [exact])


GROUPS = [
    Group(
        case,
        [f"{case}, {row}" for row in ROWS],
        unavailable="the runtimes are compared on a CPU" if DEVICE.type == "cuda" else "",
    )
    for case in CASES
]


@measures(TABLE, GROUPS, seconds=60.0)
@torch.no_grad()
def test_runtimes(row: Group, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    """All runtimes of one part, which take turns."""
    case, turns = row.label, Turns(share)
    step = ours(case, torch.float32)
    small = measure.seconds_per_call(lambda: step(batch_of(case, SIDES[-1])), 1) / SIDES[-1] ** 2
    side = share.largest(SIDES, lambda side: CALLS * len(ROWS) * small * side**2)
    batch = batch_of(case, side)
    turns.add(OURS, measure.consuming(step, itertools.repeat(batch)))
    expected_s = turns.rounds[OURS].expected_s
    if reason := emulated(torch.bfloat16):
        turns.left_out[OURS_BFLOAT16] = reason
    elif turns.expects(OURS_BFLOAT16, expected_s):
        turns.add(OURS_BFLOAT16, measure.consuming(ours(case, torch.bfloat16), itertools.repeat(batch)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "part.onnx")
        for name, runtime in RUNTIMES.items():
            if reason := runtime.missing():
                turns.left_out[name] = reason
            elif turns.expects(name, expected_s):
                if not path.exists():
                    graph = graph_of(case, torch.float32)
                    write_onnx(traced(graph, batch, True), path, graph.outputs, "")
                run = runtime.make(path, runtime.precision)
                check(f"{case}, {name}", runtime.precision, run(batch), case, batch)
                turns.add(name, measure.consuming(run, itertools.repeat(batch)))
        timings = turns.time(benchmark, OURS)
    for name, reason in turns.left_out.items():
        results.skip(TABLE, f"{case}, {name}", reason)
    for name, timing in (timings or {}).items():
        values: dict[str, Any] = {"side": side, "batch": len(batch), **timing.images_per_second(len(batch))}
        values["speed_to_ours"] = 1 / timing.ratios.get(OURS, 1.0)
        benchmark.extra_info[name] = values
        results.add(TABLE, f"{case}, {name}", values)
