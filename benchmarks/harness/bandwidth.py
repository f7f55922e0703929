"""How near an operator comes to the bandwidth of a plain copy.

GB/s             bytes that the operation cannot avoid to move / median time
share of copy    (those bytes / time) / (bytes of the copy / time of the copy), in per cent, the times from the same
                 rounds. The copy reads and writes each byte of its tensor once.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.harness import measure
from benchmarks.harness.measure import Timing
from benchmarks.harness.report import Column

COPY = "copy"  # its name among the rivals of a row
COLUMNS = (
    Column("time_ms", "median, ms", ".3f"),
    Column("iqr_ms", "IQR, ms", ".3f"),
    Column("gb_per_s", "GB/s", ".1f"),
    Column("share_of_copy", "share of copy, %", ".0f"),
    *([Column("host_ms", "host, ms", ".3f"), Column("bound", "bound by")] if measure.DEVICE.type == "cuda" else []),
)
NOTES = [
    "Share of copy: (bytes of the row / its time) / (bytes of a plain copy / its time), from the same rounds; the "
    "bytes are those that cannot be avoided (the file's docstring), so a row that moves more has a lower share.",
]
if measure.DEVICE.type == "cuda":
    NOTES.append(
        f"Host: what a call takes the CPU. A row of whose time that is more than {measure.HOST_SHARE:.0%} is marked: "
        "it says little of the kernel."
    )


def bytes_of(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def copy(source: Tensor) -> Tensor:
    """A plain copy in the dtype and memory format of `source`, allocated as any other result is."""
    return torch.empty_like(source).copy_(source)


def copy_step(tensors: Sequence[Tensor], turns: Iterator[int]) -> measure.Step:
    """A plain copy of the next of `tensors`."""
    return measure.consuming(lambda turn: copy(tensors[turn]), turns)


def speed(timing: Timing, moved_bytes: float, copied: Tensor) -> dict[str, float | str | None]:
    """The values of `COLUMNS` for a row that moves `moved_bytes` and had a copy of `copied` among its rivals."""
    return {
        "time_ms": timing.median_s * 1e3,
        "iqr_ms": timing.iqr_ms,
        "gb_per_s": moved_bytes / timing.median_s / 1e9,
        "share_of_copy": 100 * moved_bytes / (2 * bytes_of(copied)) / timing.ratios[COPY],
        "host_ms": timing.host_s and timing.host_s * 1e3,
        "bound": "host" if timing.measures_host else None,
    }
