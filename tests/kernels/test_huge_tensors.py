"""Do offsets stay right past 2^31 elements, where 32 bits end? Here without a GPU; test_gpu.py has the same on one."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from litevae_kernels import backends, group_norm_silu, haar_dwt2d, haar_idwt2d

from .samples import assert_close

CORNER = 64  # of the last sample: the only part of a huge tensor that holds anything


@pytest.fixture
def no_poison() -> Iterator[None]:
    """Filling gigabytes of fresh memory with NaN would take longer than the test."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    yield
    torch.utils.deterministic.fill_uninitialized_memory = True


def untouched(elements: int, dtype: torch.dtype) -> Tensor:
    """Zeros that take no memory until they are written."""
    return torch.frombuffer(mmap.mmap(-1, elements * dtype.itemsize), dtype=dtype)


def huge_image(memory_format: torch.memory_format, batch: int, channels: int, side: int) -> tuple[Tensor, Tensor]:
    """A bfloat16 image of more than 2^31 zeros, but for the last sample's last corner; and that corner."""
    elements = batch * channels * side * side
    assert elements > 2**31
    needed_gib = 3 * 2 * elements / 2**30
    meminfo = Path("/proc/meminfo")
    available = [line.split()[1] for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable")]
    if not available or int(available[0]) < needed_gib * 2**20:
        pytest.skip(f"needs {needed_gib:.0f} GiB of free memory")
    flat = untouched(elements, torch.bfloat16)
    if memory_format == torch.channels_last:
        image = flat.view(batch, side, side, channels).permute(0, 3, 1, 2)
    else:
        image = flat.view(batch, channels, side, side)
    corner = torch.randn(channels, CORNER, CORNER, generator=torch.Generator().manual_seed(0)).bfloat16()
    image[-1, :, -CORNER:, -CORNER:] = corner
    return image, corner


def test_haar_dwt2d_of_pixels_far_apart(backend: str, device: str) -> None:
    """Three samples, each 2^30 pixels after the one before."""
    apart = 2**30
    storage = untouched(2 * apart + 4096, torch.uint8).to(device)
    image = storage.as_strided((3, 1, 24, 32), (apart, 1, 40, 1))
    image.copy_(torch.randint(0, 256, image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8))
    for packed, expected in zip(
        haar_dwt2d(image, 3, backend=backend), haar_dwt2d(image.clone().double() / 127.5 - 1, 3), strict=True
    ):
        assert_close(packed, expected, scale=4)


@pytest.mark.usefixtures("no_poison")
@pytest.mark.slow
def test_haar_of_the_cpu() -> None:
    if not backends()["cpu"].available:
        pytest.skip(backends()["cpu"].reason)
    image, corner = huge_image(torch.contiguous_format, 3, 3, 15488)
    (packed,) = haar_dwt2d(image, backend="cpu")
    (expected,) = haar_dwt2d(corner[None].double(), backend="reference")
    side = CORNER // 2
    assert_close(packed[-1:, :, -side:, -side:], expected)
    assert packed[0, :, :side, :side].count_nonzero() == 0
    restored = haar_idwt2d(packed, backend="cpu")
    assert_close(restored[-1, :, -CORNER:, -CORNER:], corner, scale=4)


@pytest.mark.usefixtures("no_poison")
@pytest.mark.slow
def test_group_norm_silu_of_the_cpu() -> None:
    if not backends()["cpu"].available:
        pytest.skip(backends()["cpu"].reason)
    x, _ = huge_image(torch.channels_last, 33, 64, 1024)
    result = group_norm_silu(x, 32, backend="cpu")
    expected = group_norm_silu(x[-1:].double(), 32, backend="reference")
    assert_close(result[-1:], expected, scale=2)
    assert result[0].count_nonzero() == 0
