"""What an encoder holds and moves, whatever the machine: live tensors, and the bytes of each kind of operation.

image -> [DWT -> feature extraction -> aggregation -> latent] -> decoder -> losses

Group on meta tensors at 256x256, without gradients: nothing is timed, and CI holds the figures
(tests/benchmarks/test_bench_memory.py). An operation's bytes are those of its inputs and outputs, a GroupNorm's (fused
or not) with its input twice, since it cannot normalise before it has read all. Views move nothing.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.harness.available import missing_package
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import Group, measures
from benchmarks.harness.schedule import Share
from benchmarks.rivals import encoders, wavelet_peers
from benchmarks.rivals.encoders import ROWS, VAE

RESOLUTION, BATCH, SLICE = 256, 32, 8
SLICES = {f"{name}, slices of {SLICE}": name for name in ("LiteVAE-S", "LiteVAE-B")}
MEMORY_NAMES = [name for name, row in ROWS.items() if not (row.compiled or row.channels_last)] + list(SLICES)
MEMORY = Table(
    name="memory",
    title="Live tensors of the encoders",
    settings={"resolution": f"{RESOLUTION}x{RESOLUTION}", "batch": BATCH},
    columns=[
        Column("row", "encoder"),
        Column("float32", "float32, MB", ".0f"),
        Column("float32_to_vae", "/ VAE", ".3f"),
        Column("bfloat16", "bfloat16, MB", ".0f"),
        Column("bfloat16_to_vae", "/ VAE", ".3f"),
    ],
    order=MEMORY_NAMES,
    notes=["Parameters, images and activations; 1 MB is 10^6 bytes. / VAE: in the same precision."],
)

PAPER, OURS = "LiteVAE-B as in the paper", "LiteVAE-B"
KINDS = {  # by the operation's name
    "convolution": "convolutions",
    "native_group_norm": "GroupNorm",
    "silu": "SiLU",
    "group_norm_silu": "GroupNorm+SiLU",
    "add": "sums",
    "add_": "sums",
    "cat": "concatenations",
    "haar_dwt2d": "DWT",
}
OTHER = "layout, precision, other"
TRAFFIC_KINDS = [*dict.fromkeys(KINDS.values()), OTHER, "all"]
TRAFFIC = Table(
    name="traffic",
    title="Bytes that LiteVAE-B's encoder moves",
    settings={"image": f"1 x 3 x {RESOLUTION} x {RESOLUTION}, float32"},
    columns=[
        Column("row", "operation"),
        Column("paper_calls", "as in the paper: calls", "d"),
        Column("paper_mb", "MB", ".1f"),
        Column("ours_calls", "ours: calls", "d"),
        Column("ours_mb", "MB", ".1f"),
    ],
    order=TRAFFIC_KINDS,
    notes=["The paper's DWT is ptwt's, called once for each level; its calls are those of the operations inside."],
)


def live_mb(name: str, dtype: torch.dtype) -> float:
    if name in SLICES:
        size = SLICES[name].removeprefix("LiteVAE-")
        return encoders.litevae_live_mb(size, dtype, BATCH, RESOLUTION, SLICE)
    return encoders.live_mb(name, dtype, BATCH, RESOLUTION)


class Traffic(TorchDispatchMode):
    """Counts calls and bytes of every operation that runs, by the kinds of `KINDS`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not (func.is_view or name.startswith("empty")):
            kind = KINDS.get(name, OTHER)
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            again = [image for image in read if image.dim() == 4] if "GroupNorm" in kind else []
            self.calls[kind] += 1
            self.bytes[kind] += sum(tensor.nbytes for tensor in read + written + again)
        return result


def traffic(
    function: Callable[[Tensor], object],
    shape: tuple[int, ...] = (1, 3, RESOLUTION, RESOLUTION),
    dtype: torch.dtype = torch.float32,
) -> Traffic:
    with torch.inference_mode(False), torch.no_grad(), Traffic() as counted:
        function(torch.empty(shape, device="meta", dtype=dtype))
    return counted


def encoder_traffic(name: str) -> Traffic:
    """The traffic of a LiteVAE; what ptwt does is the kind DWT."""
    with torch.inference_mode(False):
        counted = traffic(encoders.build(name, "meta"))
    if name == PAPER:
        inside = traffic(wavelet_peers.paper)
        for total, part in ((counted.calls, inside.calls), (counted.bytes, inside.bytes)):
            total.subtract(part)
            total["DWT"] = sum(part.values())
    return counted


MEMORY_ROWS = [Group(name, [name], ROWS[SLICES.get(name, name)].missing()) for name in MEMORY_NAMES]


@measures(MEMORY, MEMORY_ROWS, seconds=1.0)
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # without it --benchmark-only skips the test
def test_memory(row: Group, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    counted = {dtype: live_mb(row.label, getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
    to_vae = {f"{dtype}_to_vae": mb / live_mb(VAE, getattr(torch, dtype)) for dtype, mb in counted.items()}
    results.add(MEMORY, row.label, {**counted, **to_vae})


@measures(TRAFFIC, [Group("all", TRAFFIC_KINDS)], seconds=2.0)
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_traffic(row: Group, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    columns = {"ours": encoder_traffic(OURS)} | ({} if missing_package("ptwt") else {"paper": encoder_traffic(PAPER)})
    for kind in TRAFFIC_KINDS:
        values: dict[str, Any] = {}
        for column, counted in columns.items():
            values[f"{column}_calls"] = counted.calls.total() if kind == "all" else counted.calls[kind]
            values[f"{column}_mb"] = (counted.bytes.total() if kind == "all" else counted.bytes[kind]) / 1e6
        results.add(TRAFFIC, kind, values)
