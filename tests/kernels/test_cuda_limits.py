"""Are the CUDA kernels right where the work outgrows one block, one side of a grid, or 32 bits?"""

import numpy as np
import pytest
import torch
from torch import Tensor

from litevae_kernels import group_norm_silu, haar_dwt2d, haar_idwt2d
from litevae_kernels.group_norm_silu import cuda

from .samples import assert_close

pytestmark = pytest.mark.parametrize("backend", ["cuda"], indirect=True)


def values(*shape: int, dtype: torch.dtype, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


@pytest.mark.parametrize(
    ("channels", "size", "levels", "dtype"),
    [
        (20, (18, 35), 4, torch.float32),  # a tile has 16 channels
        (70, (9, 16), 3, torch.bfloat16),  # 64
        (9, (17, 16), 4, torch.float64),  # 8
        (3, (3, 1500), 1, torch.float32),  # 682 columns
        (3, (5, 300), 5, torch.float32),
    ],
)
def test_transform_of_several_tiles(
    backend: str, device: str, channels: int, size: tuple[int, int], levels: int, dtype: torch.dtype
) -> None:
    image = values(2, channels, *size, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    exact = image.double().requires_grad_()
    image.requires_grad_()
    pyramid, expected = haar_dwt2d(image, levels, backend=backend), haar_dwt2d(exact, levels, backend="reference")
    for packed, exact_packed in zip(pyramid, expected, strict=True):
        assert packed.is_contiguous(memory_format=torch.channels_last)
        assert_close(packed, exact_packed, scale=2**levels)
    restored = haar_idwt2d(pyramid, size=size, backend=backend)
    assert_close(restored, exact, scale=8 * levels)
    grads = [torch.ones_like(packed) for packed in pyramid]
    (gradient,) = torch.autograd.grad(pyramid, image, grads)
    (exact_gradient,) = torch.autograd.grad(expected, exact, [grad.double() for grad in grads])
    assert_close(gradient, exact_gradient, scale=8 * levels)


def test_offsets_beyond_32_bits(backend: str, device: str) -> None:
    """An image of few pixels that lie far apart. Untouched pages of memory cost nothing on the host."""
    shape, strides = (2, 2, 12, 8), (2**31 + 16, 2**31 + 2**30, 2**28, 1)
    elements = 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if device == "cuda":
        memory = torch.zeros(elements, dtype=torch.uint8, device=device)
    else:
        memory = torch.from_numpy(np.zeros(elements, dtype=np.uint8))
    image = memory.as_strided(shape, strides)
    image.copy_(torch.arange(image.numel(), device=device).view(shape))
    for packed, expected in zip(
        haar_dwt2d(image, 2, backend=backend),
        haar_dwt2d(image.contiguous().double() / 127.5 - 1, 2, backend="reference"),
        strict=True,
    ):
        assert_close(packed, expected, scale=4)


@pytest.mark.parametrize(
    ("channels", "skip_channels", "dtype"),
    [(1028, 0, torch.float32), (514, 257, torch.bfloat16), (8, 2056, torch.bfloat16)],
)
def test_norm_of_more_channels_than_a_block_has_threads_for(
    backend: str, device: str, channels: int, skip_channels: int, dtype: torch.dtype
) -> None:
    x, skip = (
        values(2, count, 3, 2, dtype=dtype, device=device).to(memory_format=torch.channels_last).requires_grad_()
        for count in (channels, max(skip_channels, 1))
    )
    inputs = [x, skip] if skip_channels else [x]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    result = group_norm_silu(x, 1, skip=skip if skip_channels else None, backend=backend)
    expected = group_norm_silu(exact[0], 1, skip=exact[1] if skip_channels else None, backend="reference")
    assert_close(result, expected, scale=2)
    gradients = torch.autograd.grad(result.sum(), inputs)
    for gradient, exact_gradient in zip(gradients, torch.autograd.grad(expected.sum(), exact), strict=True):
        assert_close(gradient, exact_gradient, scale=4)


def test_norm_of_more_samples_than_a_side_of_a_grid(backend: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MAX_GRID_Y", 3)
    cuda._plan.cache_clear()
    x = values(8, 4, 5, 7, dtype=torch.float32, device=device)
    assert_close(group_norm_silu(x, 2, backend=backend), group_norm_silu(x.double(), 2, backend="reference"), scale=2)
    cuda._plan.cache_clear()
