"""How fast is the three-level Haar DWT, beside a copy of the image and the other ways to compute it?

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

32 images 3x256x256, float32, in rotation, so that none is found in a cache. Bytes, in units of the image (25.2 MB),
are what the operation cannot avoid to read and write, whatever a row really moves:

    copy                    2         read 1, write 1
    DWT                     2.3125    read 1, write the packed sub-bands of all levels: 1 + 1/4 + 1/16
    inverse                 2         read L of level 3 and H V D of all (together 1), write 1
    DWT, forward+backward   4.625     the backward reads the gradients of all levels and writes the image's
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import measure
from benchmarks.available import missing_backend, missing_compiler, missing_package
from benchmarks.measure import DEVICE, relative_error
from benchmarks.report import Column, Results, Table
from litevae_kernels import backends, haar_dwt2d, haar_idwt2d

LEVELS = 3
SHAPE = (32, 3, 256, 256)
IMAGE_BYTES = 4 * 32 * 3 * 256 * 256
TOLERANCE = 1e-5  # of float32 sums in another order

pytestmark = pytest.mark.benchmark(group="haar_dwt2d", timer=measure.clock)


def slicing(image: Tensor) -> tuple[Tensor, ...]:
    """The DWT from strided slices, one read a level, for sides that 2^LEVELS divides; for eager and torch.compile."""
    pyramid, low = [], image
    for _ in range(LEVELS):
        a, b, c, d = low[..., 0::2, 0::2], low[..., 0::2, 1::2], low[..., 1::2, 0::2], low[..., 1::2, 1::2]
        top, bottom, top_difference, bottom_difference = a + b, c + d, a - b, c - d
        bands = [top + bottom, top - bottom, top_difference + bottom_difference, top_difference - bottom_difference]
        packed = torch.cat(bands, dim=1) * 0.5  # [B, 4C, h, w]
        pyramid.append(packed)
        low = packed[:, : image.shape[1]]
    return tuple(pyramid)


def ptwt_once(image: Tensor) -> Sequence[Tensor | tuple[Tensor, Tensor, Tensor]]:
    """ptwt's own form: L of the coarsest level, then (H, V, D) from the coarsest level to the finest."""
    import ptwt

    return ptwt.wavedec2(image, "haar", mode="symmetric", level=LEVELS)


def paper(image: Tensor) -> tuple[Tensor, ...]:
    """The paper's way: one wavedec2 for each level from the image itself, concatenated and divided by 2^level."""
    import ptwt

    pyramid = []
    for level in range(1, LEVELS + 1):
        coefficients: Any = ptwt.wavedec2(image, "haar", mode="symmetric", level=level)
        low, details, *_ = coefficients
        pyramid.append(torch.cat([low, *details], dim=1) / 2**level)
    return tuple(pyramid)


def copying(image: Tensor) -> Callable[[Tensor], Tensor]:
    target = torch.empty_like(image)
    return lambda source: target.copy_(source)


def inverting(image: Tensor) -> Callable[[Sequence[Tensor]], Tensor]:
    return lambda pyramid: haar_idwt2d(pyramid)


def transforming(backend: str | None) -> Callable[[Tensor], Callable[[Tensor], tuple[Tensor, ...]]]:
    return lambda _: lambda image: haar_dwt2d(image, LEVELS, backend=backend)


def with_backward(transform: Callable[[Tensor], Sequence[Tensor]], image: Tensor) -> Callable[[Tensor], Tensor]:
    """image -> the gradient of the image, with the same gradients of the sub-bands every time."""
    cotangents = haar_dwt2d(image.flip(0), LEVELS)

    def run(source: Tensor) -> Tensor:
        source = source.detach().requires_grad_()
        return torch.autograd.grad(transform(source), source, cotangents)[0]

    return run


@dataclass(frozen=True)
class Row:
    """`make(image)` gives the function to time; `bytes` in images; `kind` says what its result must equal."""

    label: str
    bytes: float
    kind: str
    make: Callable[[Tensor], Callable[..., object]]
    unavailable: str = ""


ROWS = [
    Row("copy of the image", 2, "copy", copying),
    *(Row(f"haar_dwt2d, {name}", 2.3125, "pyramid", transforming(name), missing_backend(name)) for name in backends()),
    Row("haar_idwt2d", 2, "inverse", inverting),
    Row("haar_dwt2d, forward+backward", 4.625, "gradient", lambda x: with_backward(lambda y: haar_dwt2d(y, LEVELS), x)),
    Row("slicing, eager", 2.3125, "pyramid", lambda _: slicing),
    Row("slicing, torch.compile", 2.3125, "pyramid", lambda _: torch.compile(slicing), missing_compiler()),
    Row(
        "slicing, torch.compile, forward+backward",
        4.625,
        "gradient",
        lambda image: with_backward(torch.compile(slicing), image),
        missing_compiler(),
    ),
    Row("ptwt.wavedec2, once", 2.3125, "ptwt", lambda _: ptwt_once, missing_package("ptwt")),
    Row("the paper's way: ptwt.wavedec2, 3 times", 2.3125, "mean pyramid", lambda _: paper, missing_package("ptwt")),
]

TABLE = Table(
    name="haar_dwt2d",
    title="Haar DWT, three levels",
    settings={"input": "32x3x256x256", "dtype": "float32", "levels": LEVELS},
    columns=[
        Column("row", "operation"),
        Column("time_ms", "median, ms", ".3f"),
        Column("iqr_ms", "IQR, ms", ".3f"),
        Column("gb_per_s", "GB/s", ".1f"),
        Column("to_copy", "time / copy"),
        Column("to_ours", "time / haar_dwt2d"),
        Column("rounds", "rounds", "d"),
    ],
    order=[row.label for row in ROWS],
    notes=[
        "GB/s counts the bytes that cannot be avoided (bench_haar_dwt2d.py); a row that moves more has a lower figure.",
        "The two ratios are medians over rounds of the row's time and the other's right after it; haar_dwt2d there is "
        "the default backend, forward only.",
        "The copy's ratio to the copy and haar_dwt2d's to haar_dwt2d are measured too: their distance from 1 is noise.",
        "ptwt.wavedec2 once returns the bands unpacked and unscaled; packing them is not in its time.",
    ],
)


def check(kind: str, function: Callable[..., object], image: Tensor) -> None:
    """Refuse to time a wrong result: compare it with the reference backend's."""

    def reference(source: Tensor) -> tuple[Tensor, ...]:
        return haar_dwt2d(source, LEVELS, backend="reference")

    actual: Any
    expected: Any
    if kind == "copy":
        actual, expected = [function(image)], [image]
    elif kind == "inverse":
        actual, expected = [function(reference(image))], [image]
    elif kind == "gradient":
        actual, expected = [function(image)], [with_backward(reference, image)(image)]
    elif kind == "mean pyramid":
        actual, expected = function(image), haar_dwt2d(image, LEVELS, scaling="mean", backend="reference")
    else:
        actual, expected = function(image), reference(image)
    if kind == "ptwt":
        low, *details = actual  # coarsest first, without the L of the finer levels
        packed = [torch.cat([expected[-1 - i][:, :3], *bands], dim=1) for i, bands in enumerate(details)]
        actual = [torch.cat([low, packed[0][:, 3:]], dim=1), *packed[1:]][::-1]
    for level, (result, correct) in enumerate(zip(actual, expected, strict=True), start=1):
        error = relative_error(result, correct)
        if error > TOLERANCE:
            raise AssertionError(f"{kind}, result {level}: relative error {error:.1e} is above {TOLERANCE:.0e}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_haar_dwt2d(row: Row, benchmark: BenchmarkFixture, results: Results) -> None:
    if row.unavailable:
        results.skip(TABLE, row.label, row.unavailable)
        pytest.skip(row.unavailable)
    torch.manual_seed(0)
    images = measure.rotating(lambda: torch.randn(SHAPE, device=DEVICE))
    inputs = measure.rotating(lambda: haar_dwt2d(next(images), LEVELS)) if row.kind == "inverse" else images
    image = next(images)
    function = row.make(image)
    with torch.set_grad_enabled(row.kind == "gradient"):
        check(row.kind, function, image)
        rivals = {
            "copy": measure.consuming(copying(image), images),
            "ours": measure.consuming(lambda x: haar_dwt2d(x, LEVELS), images),
        }
        timing = measure.time_interleaved(benchmark, measure.consuming(function, inputs), rivals)
    if timing is None:
        return
    benchmark.extra_info.update(
        time_ms=timing.median_s * 1e3,
        iqr_ms=timing.iqr_s * 1e3,
        gb_per_s=row.bytes * IMAGE_BYTES / timing.median_s / 1e9,
        to_copy=timing.ratios["copy"],
        to_ours=timing.ratios["ours"],
        rounds=timing.rounds,
    )
    results.add(TABLE, row.label, benchmark.extra_info)
