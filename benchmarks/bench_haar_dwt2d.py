"""The speed of the three-level Haar DWT, beside a copy of the image and the other ways to compute it.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

Images 3x256x256, 32 of them on a CPU and 256 on a GPU, in rotation, so that none is found in a cache. Two tables: all
ways of computing it in float32, NCHW (haar_dwt2d), and our backends on other inputs (haar_dwt2d_inputs). Bytes, in
units of the image, are what the operation cannot avoid to read and write, whatever a row really moves:

    copy                    2         read 1, write 1
    DWT                     2.3125    read 1, write the packed sub-bands of all levels: 1 + 1/4 + 1/16
    DWT, backward           2.3125    read the gradients of all levels, write the image's
    DWT, forward+backward   4.625
    inverse                 2         read L of level 3 and H V D of all (together 1), write 1
    inverse, backward       2.3125    read the image's gradient, write that of all levels (0 in the other levels' L)

From uint8 the image counts one byte an element, its sub-bands those of their dtype, and the copy is one of an image of
that dtype.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import bandwidth, measure
from benchmarks.harness.available import missing_backend, missing_compiler, missing_import
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
from benchmarks.harness.measure import DEVICE
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import measures
from benchmarks.harness.schedule import Share
from benchmarks.rivals import wavelet_peers
from benchmarks.rivals.wavelet_peers import LEVELS, slicing
from litevae_kernels import backends, haar_dwt2d, haar_idwt2d

SHAPE = (256 if DEVICE.type == "cuda" else 32, 3, 256, 256)
# Sums of 64 pixels in another order, twice; sums in float32 that are rounded once, by either side.
TOLERANCES = {torch.float32: 128 * UNIT_ROUNDOFF["float32"], torch.bfloat16: 2 * UNIT_ROUNDOFF["bfloat16"]}
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}
LAYOUTS = {torch.contiguous_format: "NCHW", torch.channels_last: "channels_last"}


def dwt(image: Tensor, dtype: torch.dtype | None = None, backend: str | None = None) -> tuple[Tensor, ...]:
    return haar_dwt2d(image, LEVELS, dtype=dtype, backend=backend)


def idwt(*pyramid: Tensor, backend: str | None = None) -> Tensor:
    return haar_idwt2d(pyramid, backend=backend)


@dataclass(frozen=True)
class HaarRow:
    """`function` in `direction`, from an image of dtype `source`, or from its pyramid if `inverse`.

    Its result, and the gradients that its backward starts from, are our pyramid in another `form`.
    """

    label: str
    function: Function
    direction: str = FORWARD
    unavailable: str = ""
    inverse: bool = False
    form: Callable[[Sequence[Tensor]], Sequence[Tensor]] = list
    source: torch.dtype = torch.float32
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format
    compile: bool = False
    is_copy: bool = False

    def ours(self, backend: str | None) -> Function:
        """The same by us."""
        if self.inverse:
            return partial(idwt, backend=backend)
        return lambda image: self.form(dwt(image, self.dtype, backend))

    def samples(self, images: Sequence[Tensor]) -> list[Sample]:
        """A sample from each image; the gradients of the result come from the image before it."""
        before = [images[-1], *images[:-1]]
        if self.inverse:
            return [Sample(dwt(image), (other,)) for image, other in zip(images, before, strict=True)]
        if self.direction == FORWARD:
            return [Sample((image,)) for image in images]
        grads = [[band.clone() for band in self.form(dwt(other))] for other in before]
        return [Sample((image,), grad) for image, grad in zip(images, grads, strict=True)]


@lru_cache(maxsize=1)
def random_images(dtype: torch.dtype, memory_format: torch.memory_format) -> list[Tensor]:
    """More images of `SHAPE` than a cache holds."""
    torch.manual_seed(0)

    def image() -> Tensor:
        if dtype == torch.uint8:
            pixels = torch.randint(0, 256, SHAPE, device=DEVICE, dtype=torch.uint8)
        else:
            pixels = torch.randn(SHAPE, device=DEVICE).to(dtype)
        return pixels.contiguous(memory_format=memory_format)

    return measure.beyond_cache(image)


def moved_bytes(row: HaarRow) -> float:
    """What cannot be avoided, for a batch of `SHAPE`: the docstring's table."""
    elements = torch.Size(SHAPE).numel()
    source, result = row.source.itemsize * elements, row.dtype.itemsize * elements
    if row.is_copy:
        return 2 * source
    pyramid = result * sum(0.25**level for level in range(LEVELS))
    forward, backward = source + (result if row.inverse else pyramid), source + pyramid
    return {FORWARD: forward, BACKWARD: backward, BOTH: forward + backward}[row.direction]


def _each(
    directions: Sequence[str], label: str, function: Function, unavailable: str = "", **options: Any
) -> list[HaarRow]:
    return [
        HaarRow(labelled(label, direction), function, direction, unavailable, **options) for direction in directions
    ]


def _backend_rows(name: str) -> list[HaarRow]:
    missing = missing_backend(name)
    return [
        *_each((FORWARD, BACKWARD, BOTH), f"haar_dwt2d, {name}", partial(dwt, backend=name), missing),
        *_each((FORWARD, BACKWARD), f"haar_idwt2d, {name}", partial(idwt, backend=name), missing, inverse=True),
    ]


ROWS = [
    HaarRow("copy of the image", bandwidth.copy, is_copy=True),
    *(row for name in backends() for row in _backend_rows(name)),
    *_each((FORWARD, BACKWARD, BOTH), "slicing, eager", slicing),
    *_each((FORWARD, BACKWARD, BOTH), "slicing, torch.compile", slicing, missing_compiler(), compile=True),
    *(
        row
        for peer in wavelet_peers.PEERS
        for row in _each((FORWARD, BOTH), peer.label, peer.transform, missing_import(peer.package), form=peer.form)
    ),
]


def _input_rows(
    source: torch.dtype, dtype: torch.dtype, memory_format: torch.memory_format, name: str
) -> list[HaarRow]:
    names = NAMES[dtype] if source == dtype else f"{NAMES[source]} to {NAMES[dtype]}"
    label, missing = f"{names}, {LAYOUTS[memory_format]}, {name}", missing_backend(name)
    options = {"source": source, "dtype": dtype, "memory_format": memory_format}
    transform = partial(dwt, dtype=dtype, backend=name)
    if source == torch.uint8:
        return _each((FORWARD,), f"DWT, {label}", transform, missing, **options)
    inverse = partial(idwt, backend=name)
    return [
        *_each((FORWARD, BACKWARD), f"DWT, {label}", transform, missing, **options),
        *_each((FORWARD, BACKWARD), f"inverse, {label}", inverse, missing, inverse=True, **options),
    ]


INPUT_ROWS = [
    row
    for source, dtype, memory_format in (
        (torch.float32, torch.float32, torch.channels_last),
        (torch.bfloat16, torch.bfloat16, torch.contiguous_format),
        (torch.bfloat16, torch.bfloat16, torch.channels_last),
        (torch.uint8, torch.float32, torch.contiguous_format),
        (torch.uint8, torch.bfloat16, torch.contiguous_format),
        (torch.uint8, torch.bfloat16, torch.channels_last),
    )
    for name in backends()
    if name != "reference"
    for row in _input_rows(source, dtype, memory_format, name)
]

TABLE = Table(
    name="haar_dwt2d",
    title="Haar DWT, three levels",
    settings={"input": "x".join(map(str, SHAPE)), "dtype": "float32", "layout": "NCHW", "levels": LEVELS},
    columns=[
        Column("row", "operation"),
        *bandwidth.COLUMNS,
        Column("to_copy", "time / copy"),
        Column("to_ours", "time / ours"),
        Column("rounds", "rounds", "d"),
    ],
    order=[row.label for row in ROWS],
    notes=[
        *bandwidth.NOTES,
        "The two ratios are medians over rounds of the row's time and the other's right after it. Ours: the same "
        "transform in the same direction by the default backend; for the copy, the DWT.",
        "The copy's ratio to the copy and ours to ours are measured too: their distance from 1 is noise.",
        "ptwt.wavedec2 once and pytorch_wavelets return the bands unpacked; packing them is not in their time.",
    ],
)
INPUTS_TABLE = Table(
    name="haar_dwt2d_inputs",
    title="Haar DWT, three levels: other layouts and dtypes",
    settings={"input": "x".join(map(str, SHAPE)), "levels": LEVELS},
    columns=[
        Column("row", "operation"),
        *bandwidth.COLUMNS,
        Column("compiled_to_row", "compiled slicing / row"),
        Column("rounds", "rounds", "d"),
    ],
    order=[row.label for row in INPUT_ROWS],
    notes=[
        *bandwidth.NOTES,
        "The ratio is the median over rounds of torch.compile's time for slicing and the row's, from the same input.",
    ],
)


def check(row: HaarRow, function: Function, sample: Sample) -> None:
    """Refuse to time a wrong result: compare it with the reference backend's."""
    expected = sample.inputs if row.is_copy else result(row.direction, row.ours("reference"), sample)
    check_close(row.label, result(row.direction, function, sample), expected, TOLERANCES[row.dtype])


@measures(TABLE, ROWS, seconds=1.5)
@torch.no_grad()
def test_haar_dwt2d(row: HaarRow, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    images = random_images(row.source, row.memory_format)
    samples, turns = row.samples(images), turns_of(images)
    function = compiled(row.function, "float32") if row.compile else row.function
    check(row, function, samples[0])
    rivals = {
        bandwidth.COPY: bandwidth.copy_step(images, turns),
        "ours": step(row.direction, row.ours(None), samples, turns),
    }
    timing = measure.time_interleaved(benchmark, step(row.direction, function, samples, turns), rivals, share)
    if timing is None:
        return
    benchmark.extra_info.update(
        **bandwidth.speed(timing, moved_bytes(row), images[0]),
        to_copy=timing.ratios[bandwidth.COPY],
        to_ours=timing.ratios["ours"],
        rounds=timing.rounds,
    )
    results.add(TABLE, row.label, benchmark.extra_info)


@measures(INPUTS_TABLE, INPUT_ROWS, seconds=1.5)
@torch.no_grad()
def test_haar_dwt2d_inputs(row: HaarRow, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    images = random_images(row.source, row.memory_format)
    samples, turns = row.samples(images), turns_of(images)
    copied = images if row.source == row.dtype else [image.to(row.dtype) for image in images]
    check(row, row.function, samples[0])
    rivals = {bandwidth.COPY: bandwidth.copy_step(copied, turns)}
    if row.direction == FORWARD and not row.inverse and not missing_compiler():
        rival = compiled(slicing, (row.source, row.dtype, row.memory_format))
        rivals["compiled"] = step(FORWARD, partial(rival, dtype=row.dtype), samples, turns)
    timing = measure.time_interleaved(benchmark, step(row.direction, row.function, samples, turns), rivals, share)
    if timing is None:
        return
    benchmark.extra_info.update(
        **bandwidth.speed(timing, moved_bytes(row), copied[0]),
        compiled_to_row=1 / timing.ratios["compiled"] if "compiled" in rivals else None,
        rounds=timing.rounds,
    )
    results.add(INPUTS_TABLE, row.label, benchmark.extra_info)
