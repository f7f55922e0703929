"""Do the rivals of the Haar DWT compute the Haar DWT, and is a wrong one refused?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks import bench_haar_dwt2d as bench
from litevae_kernels import haar_dwt2d

IMAGE = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))


def test_slicing_equals_ours():
    image = IMAGE.double()
    for ours, sliced in zip(haar_dwt2d(image, bench.LEVELS), bench.slicing(image), strict=True):
        torch.testing.assert_close(sliced, ours, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("row", bench.ROWS, ids=lambda row: row.label)
def test_every_row_passes_the_check_before_timing(row: bench.Row):
    if row.unavailable:
        pytest.skip(row.unavailable)
    if "compile" in row.label:
        pytest.skip("compiling takes long; the benchmark checks it")
    image = IMAGE.to(bench.DEVICE)
    bench.check(row.kind, row.make(image), image)


@pytest.mark.parametrize("kind", ["pyramid", "mean pyramid"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_check_refuses_a_wrong_level(kind: str, level: int):
    def wrong(image: Tensor) -> list[Tensor]:
        pyramid = list(haar_dwt2d(image, bench.LEVELS, scaling="mean" if kind == "mean pyramid" else "orthonormal"))
        pyramid[level] = pyramid[level].roll(1, dims=1)
        return pyramid

    with pytest.raises(AssertionError, match=f"{kind}, result {level + 1}: relative error"):
        bench.check(kind, wrong, IMAGE)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("copy", lambda image: image + 1e-3),
        ("inverse", lambda pyramid: torch.zeros_like(IMAGE)),
        ("gradient", lambda image: image),
    ],
)
def test_the_check_refuses_other_wrong_results(kind: str, wrong: Callable[..., Tensor]):
    with pytest.raises(AssertionError, match=f"{kind}, result 1: relative error"):
        bench.check(kind, wrong, IMAGE)


def test_counted_bytes_are_those_of_the_tensors():
    pyramid = haar_dwt2d(torch.empty(bench.SHAPE, device="meta"), bench.LEVELS)
    image_bytes = 4 * torch.Size(bench.SHAPE).numel()
    written = sum(4 * packed.numel() for packed in pyramid) / image_bytes
    by_kind = {row.kind: row.bytes for row in bench.ROWS}
    assert image_bytes == bench.IMAGE_BYTES
    assert by_kind["pyramid"] == 1 + written
    assert by_kind["gradient"] == 2 * (1 + written)
