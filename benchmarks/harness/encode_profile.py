"""Where the time of LiteVAE-B's encoder goes, kernel by kernel: time, bytes, registers, occupancy.

image -> [DWT -> feature extraction -> aggregation -> latent] -> decoder -> losses

    python -m benchmarks.harness.encode_profile --output DIR    by torch.profiler: two tables in DIR/results
    python -m benchmarks.harness.encode_profile --plain    a few calls alone, for Nsight Compute and Systems

Bytes are those that each kind of operation cannot avoid, counted as benchmarks/bench_memory.py does. What it really
moves, caches apart, only a hardware counter knows: Nsight Compute's.
"""

import argparse
import gzip
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import bandwidth, measure, report
from benchmarks.harness.available import missing_package
from benchmarks.harness.measure import DEVICE
from benchmarks.harness.report import Column, Measured, Table
from benchmarks.rivals import encoders
from litevae_kernels.checks import check_int, wrong_value
from litevae_kernels.files import check_folder

ENCODER = "LiteVAE-B"
CALLS = 5
LONGEST_NAME = 72
COPIED_BYTES = 2**29 if DEVICE.type == "cuda" else 2**25
# Names of PyTorch's operations as a user calls them, by the names that bench_memory.py knows.
ALIASES = {"conv2d": "convolution", "group_norm": "native_group_norm"}


@dataclass(frozen=True)
class Kernel:
    """A launch, or on a CPU an operation. `operation` is the outermost that PyTorch dispatched."""

    name: str
    operation: str
    microseconds: float
    arguments: Mapping[str, Any]


def encoding(dtype: torch.dtype, batch: int, side: int) -> tuple[nn.Module, Tensor]:
    """The encoder, warm, and a batch."""
    torch.manual_seed(0)
    image = (torch.rand(batch, 3, side, side, device=DEVICE) * 2 - 1).to(dtype)
    encoder = encoders.build(ENCODER, DEVICE, dtype)
    for _ in range(3):
        encoder(image)
    measure.clock()
    return encoder, image


def kernels(events: Iterable[Mapping[str, Any]]) -> list[Kernel]:
    """The kernels of a trace, or the outermost operations if it has none, as on a CPU.

    A kernel names the operation that launched it, which may be inside of another: on a thread, operations nest.
    """
    complete = [event for event in events if event.get("ph") == "X"]
    launches = [event for event in complete if event.get("cat") == "kernel"]
    operations = sorted(
        (event for event in complete if event.get("cat") == "cpu_op"), key=lambda event: (event["ts"], -event["dur"])
    )
    outermost: dict[Any, str] = {}
    tops: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)  # by thread
    for event in operations:
        thread_events = tops[event["tid"]]
        if not thread_events or event["ts"] >= thread_events[-1]["ts"] + thread_events[-1]["dur"]:
            thread_events.append(event)
        outermost[event["args"].get("External id")] = thread_events[-1]["name"]
    if not launches:
        return [Kernel(top["name"], top["name"], top["dur"], top["args"]) for of in tops.values() for top in of]
    return [
        Kernel(event["name"], outermost.get(event["args"].get("External id"), "?"), event["dur"], event["args"])
        for event in launches
    ]


def by_name(launched: Sequence[Kernel], calls: int) -> list[dict[str, Any]]:
    """A row for each kernel, the longest first; times and launches of one call."""
    groups: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in launched:
        groups[f"{kernel.name[:LONGEST_NAME]} ({kernel.operation.rpartition('::')[2]})"].append(kernel)
    total = sum(kernel.microseconds for kernel in launched)
    microseconds = {label: sum(kernel.microseconds for kernel in group) for label, group in groups.items()}
    return [
        {
            "row": label,
            "launches": len(groups[label]) / calls,
            "time_us": microseconds[label] / calls,
            "share": 100 * microseconds[label] / total,
            "registers": _largest(groups[label], "registers per thread"),
            "shared_bytes": _largest(groups[label], "shared memory"),
            "occupancy": _largest(groups[label], "est. achieved occupancy %"),
        }
        for label in sorted(groups, key=lambda label: -microseconds[label])
    ]


def _largest(group: Sequence[Kernel], argument: str) -> int | None:
    values = [int(kernel.arguments[argument]) for kernel in group if argument in kernel.arguments]
    return max(values, default=None)


def by_kind(launched: Sequence[Kernel], calls: int, moved: Mapping[str, float], copy_gb_per_s: float) -> list[Any]:
    """A row for each kind of operation: time, launches, and the bytes that it cannot avoid."""
    from benchmarks.bench_memory import KINDS, OTHER

    times: dict[str, float] = defaultdict(float)
    launches: dict[str, float] = defaultdict(float)
    for kernel in launched:
        name = kernel.operation.rpartition("::")[2]
        kind = KINDS.get(ALIASES.get(name, name), OTHER)
        times[kind] += kernel.microseconds / calls
        launches[kind] += 1 / calls
    rows = []
    for kind in sorted(times, key=lambda kind: -times[kind]):
        gb_per_s = moved.get(kind, 0.0) / times[kind] / 1e3
        row = {"row": kind, "launches": launches[kind], "time_us": times[kind], "mb": moved.get(kind, 0.0) / 1e6}
        rows.append({**row, "gb_per_s": gb_per_s, "share_of_copy": 100 * gb_per_s / copy_gb_per_s})
    return rows


def moved_bytes(dtype: torch.dtype, batch: int, side: int) -> Mapping[str, float]:
    """Bytes of each kind of operation in one call, counted on meta tensors."""
    from benchmarks.bench_memory import traffic

    return traffic(encoders.build(ENCODER, "meta", dtype), (batch, 3, side, side), dtype).bytes


def copy_gb_per_s() -> float:
    tensor = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=DEVICE)
    step = measure.consuming(bandwidth.copy, itertools.repeat(tensor))
    step()
    return 2 * tensor.nbytes / measure.seconds_per_call(step, 10) / 1e9


@torch.inference_mode()
def profile(dtype: torch.dtype, batch: int, side: int, trace: Path) -> list[Kernel]:
    """The kernels of `CALLS` calls; the trace, for chrome://tracing and Perfetto, stays in `trace`."""
    encoder, image = encoding(dtype, batch, side)
    with torch.profiler.profile() as recorded:
        for _ in range(CALLS):
            encoder(image)
        measure.clock()
    trace.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(trace))
    with gzip.open(trace) as content:
        return kernels(json.load(content)["traceEvents"])


@torch.inference_mode()
def run_plainly(dtype: torch.dtype, batch: int, side: int) -> None:
    """Warm calls, then one between cudaProfilerStart and -Stop."""
    encoder, image = encoding(dtype, batch, side)
    with torch.cuda.profiler.profile() if DEVICE.type == "cuda" else nullcontext():
        encoder(image)
        measure.clock()


KERNEL_COLUMNS = [
    Column("row", "kernel (operation)"),
    Column("launches", "launches", ".3g"),
    Column("time_us", "us", ".1f"),
    Column("share", "share, %", ".1f"),
    Column("registers", "registers", "d"),
    Column("shared_bytes", "shared, bytes", "d"),
    Column("occupancy", "occupancy, %", "d"),
]
KIND_COLUMNS = [
    Column("row", "operations"),
    Column("launches", "launches", ".3g"),
    Column("time_us", "us", ".1f"),
    Column("mb", "MB", ".1f"),
    Column("gb_per_s", "GB/s", ".0f"),
    Column("share_of_copy", "share of copy, %", ".0f"),
]


def write(name: str, title: str, columns: Sequence[Column], rows: Sequence[Any], about: Any, output: Path) -> None:
    """One table in `output`/results, and printed."""
    labels = [row["row"] for row in rows]
    table = Table(name, title, about["settings"], columns, labels, ["Of one call, the mean of several; eager."])
    measured = Measured(table, dict(zip(labels, rows, strict=True)))
    document = report.document(measured, about["conditions"])
    print(report.markdown(document), report.write(document, output / "results"), sep="\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness.encode_profile")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), metavar="DIR")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--plain", action="store_true", help="no profiler of ours")
    arguments = parser.parse_args(argv)
    batch, side = arguments.batch, arguments.side
    try:
        check_folder("--output", arguments.output)
        check_int("--batch", batch, at_least=1)
        if side < 8 or side % 8:
            raise wrong_value("--side", "be a multiple of 8 and at least 8", side)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.plain:
        run_plainly(torch.bfloat16, batch, side)
        return 0
    conditions = report.conditions(" ".join(["python -m benchmarks.harness.encode_profile", *(argv or sys.argv[1:])]))
    copy = copy_gb_per_s()
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        settings = {"images": f"{batch} x 3 x {side} x {side}, {name}", "copy, GB/s": f"{copy:.0f}"}
        about: Any = {"settings": settings, "conditions": conditions}
        launched = profile(dtype, batch, side, arguments.output / f"trace-{name}.json.gz")
        title = f"{ENCODER}'s encoder, {name}"
        rows = by_name(launched, CALLS)
        write(f"profile_kernels_{name}", f"{title}: kernels", KERNEL_COLUMNS, rows, about, arguments.output)
        if missing := missing_package("diffusers"):
            print(f"no table by kind of operation: {missing}")
            continue
        rows = by_kind(launched, CALLS, moved_bytes(dtype, batch, side), copy)
        write(f"profile_kinds_{name}", f"{title}: operations", KIND_COLUMNS, rows, about, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
