"""Is the Haar DWT PyWavelets', on every backend, for any shape and dtype?"""

import numpy as np
import pytest
import pywt
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from litevae_kernels import haar_dwt2d, haar_idwt2d

from .samples import SIZES, TOLERANCES, assert_close, image_of


def pywt_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """PyWavelets' L H V D of every level, packed and finest first."""
    low, pyramid = image.double().numpy(), []
    for _ in range(levels):
        low, details = pywt.dwt2(low, "haar", mode="symmetric")
        pyramid.append(torch.from_numpy(np.concatenate([low, *details], axis=1)))
    return pyramid


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_equals_pywavelets(backend: str, device: str, size: tuple[int, int], levels: int) -> None:
    image = image_of(*size)
    pyramid = haar_dwt2d(image.to(device), levels, backend=backend)
    assert len(pyramid) == levels
    for packed, expected in zip(pyramid, pywt_pyramid(image, levels), strict=True):
        assert_close(packed.cpu(), expected, scale=10)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    levels=st.integers(1, 7),
    channels=st.integers(1, 5),
    channels_last=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCES)),
)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_any_shape_and_dtype_equals_pywavelets(
    name: str, size: tuple[int, int], levels: int, channels: int, channels_last: bool, dtype: torch.dtype
) -> None:
    image = image_of(*size, dtype=dtype, channels=channels)
    if channels_last:
        image = image.to(memory_format=torch.channels_last)
    for packed, expected in zip(haar_dwt2d(image, levels, backend=name), pywt_pyramid(image, levels), strict=True):
        assert_close(packed, expected, scale=2**levels)


def test_inverse_equals_pywavelets_and_takes_one_packed_tensor(backend: str, device: str) -> None:
    packed = image_of(6, 9, channels=12, device=device)
    low, *details = packed.cpu().numpy().reshape(2, 4, 3, 6, 9).transpose(1, 0, 2, 3, 4)
    expected = torch.from_numpy(pywt.idwt2((low, details), "haar"))
    assert_close(haar_idwt2d(packed, backend=backend).cpu(), expected)
