"""Do the rivals of the Haar DWT compute it, is a wrong one refused, and are the bytes those of the tensors?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import bench_haar_dwt2d as bench
from benchmarks.harness.directions import BACKWARD, BOTH, FORWARD, result
from benchmarks.rivals import wavelet_peers
from litevae_kernels import haar_dwt2d

SHAPE = (2, 3, 32, 40)


def images(row: bench.HaarRow) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, SHAPE, generator=generator, dtype=torch.uint8) for _ in range(2)]
    values = pixels if row.source == torch.uint8 else [(image / 127.5 - 1).to(row.source) for image in pixels]
    return [image.to(bench.DEVICE).contiguous(memory_format=row.memory_format) for image in values]


def named(label: str) -> bench.HaarRow:
    (row,) = (row for row in bench.ROWS if row.label == label)
    return row


def test_slicing_equals_ours():
    image = torch.randn(SHAPE, dtype=torch.float64)
    for ours, sliced in zip(haar_dwt2d(image, bench.LEVELS), bench.slicing(image), strict=True):
        torch.testing.assert_close(sliced, ours, rtol=1e-14, atol=1e-14)


def test_slicing_reads_pixels_as_values_from_minus_1_to_1():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 1, 8, 4)  # columns of -1 and 1
    finest = bench.slicing(pixels, torch.float64)[0]
    assert [band.unique().tolist() for band in finest[0]] == [[0.0], [0.0], [-2.0], [0.0]]


@pytest.mark.parametrize("row", [*bench.ROWS, *bench.INPUT_ROWS], ids=lambda row: row.label)
@torch.no_grad()
def test_every_row_passes_the_check_before_timing(row: bench.HaarRow):
    if row.unavailable:
        pytest.skip(row.unavailable)
    if row.compile:
        pytest.skip("compiling takes long; the benchmark checks it")
    for sample in row.samples(images(row)):
        bench.check(row, row.function, sample)


@pytest.mark.parametrize("label", ["haar_dwt2d, reference", "the paper's way: ptwt.wavedec2, 3 times"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_check_refuses_a_wrong_level(label: str, level: int):
    row = named(label)

    def wrong(image: Tensor) -> list[Tensor]:
        pyramid = list(row.form(haar_dwt2d(image, bench.LEVELS)))
        pyramid[level] = pyramid[level].roll(1, dims=1)
        return pyramid

    with pytest.raises(AssertionError, match=f"{label}, result {level + 1}: relative error"):
        bench.check(row, wrong, row.samples(images(row))[0])


@pytest.mark.parametrize(
    ("label", "wrong"),
    [
        ("copy of the image", lambda image: image + 1e-3),
        ("haar_idwt2d, reference", lambda *pyramid: torch.zeros(SHAPE, device=bench.DEVICE)),
        ("haar_dwt2d, reference, backward", lambda image: haar_dwt2d(image.roll(1, dims=2), bench.LEVELS)),
        ("haar_idwt2d, reference, backward", lambda *pyramid: bench.idwt(*pyramid).flip(0)),
    ],
)
def test_the_check_refuses_other_wrong_results(label: str, wrong: Any):
    row = named(label)
    with pytest.raises(AssertionError, match=f"{label}, result 1: relative error"):
        bench.check(row, wrong, row.samples(images(row))[0])


@pytest.mark.parametrize("row", [*bench.ROWS, *bench.INPUT_ROWS], ids=lambda row: row.label)
def test_counted_bytes_are_those_of_the_tensors(row: bench.HaarRow, monkeypatch: pytest.MonkeyPatch):
    """The copy's result; otherwise what ours reads and writes, but for the L that the inverse leaves unread."""
    monkeypatch.setattr(bench, "SHAPE", SHAPE)
    image = torch.empty(SHAPE, dtype=row.source, device="meta")
    pyramid = [torch.empty_like(packed, dtype=row.dtype) for packed in haar_dwt2d(image.float(), bench.LEVELS)]
    image_bytes, pyramid_bytes = image.nbytes, sum(packed.nbytes for packed in pyramid)
    unread = sum(packed.nbytes // 4 for packed in pyramid[:-1])
    forward = image_bytes + pyramid_bytes - (unread if row.inverse else 0)
    backward = image_bytes + pyramid_bytes
    expected = {FORWARD: forward, BACKWARD: backward, BOTH: forward + backward}[row.direction]
    assert bench.moved_bytes(row) == (2 * image_bytes if row.is_copy else expected)


@pytest.mark.parametrize("peer", wavelet_peers.PEERS, ids=lambda peer: peer.label)
def test_a_peer_has_every_band_in_its_form(peer: wavelet_peers.Peer):
    """H, V and D of all levels and L of the coarsest survive: the energy of the image does."""
    image = torch.randn(SHAPE, dtype=torch.float64)
    form = peer.form(haar_dwt2d(image, bench.LEVELS))
    if peer.form is wavelet_peers.mean_scaled:
        form = wavelet_peers.unpacked([packed * 2**level for level, packed in enumerate(form, start=1)])
    energy = sum(float(band.square().sum()) for band in form)
    assert energy == pytest.approx(float(image.square().sum()))


def test_a_backward_starts_from_another_images_sub_bands():
    row = named("haar_dwt2d, reference, backward")
    first, second = images(row)
    sample = row.samples([first, second])[0]
    expected = haar_dwt2d(second, bench.LEVELS, backend="reference")
    for grad, band in zip(sample.grads, expected, strict=True):
        torch.testing.assert_close(grad, band)
    (gradient,) = result(BACKWARD, row.function, sample)
    products = [(band * grad).sum() for band, grad in zip(bench.dwt(first), sample.grads, strict=True)]
    torch.testing.assert_close((first * gradient).sum(), torch.stack(products).sum())  # <x, A^T g> = <A x, g>
