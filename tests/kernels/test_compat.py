"""Do `wavedec2` and `waverec2` stand in for ptwt's, Haar?"""

import ptwt
import pytest
import pywt
import torch

from litevae_kernels.compat import wavedec2, waverec2

from .samples import assert_close


@pytest.mark.parametrize("shape", [(16, 32), (3, 8, 8), (2, 3, 32, 16)])
@pytest.mark.parametrize("level", [None, 1, 3])
@pytest.mark.parametrize("wavelet", ["haar", pywt.Wavelet("haar"), "db1"])
def test_equals_ptwt(shape: tuple[int, ...], level: int | None, wavelet: object) -> None:
    data = torch.randn(shape, dtype=torch.float64)
    actual, expected = wavedec2(data, wavelet, level=level), ptwt.wavedec2(data, wavelet, level=level)
    assert len(actual) == len(expected)
    assert_close(actual[0], expected[0], scale=10)
    for ours, theirs in zip(actual[1:], expected[1:], strict=True):
        assert ours._fields == theirs._fields
        for one, two in zip(ours, theirs, strict=True):
            assert_close(one, two, scale=10)
    assert_close(waverec2(actual, wavelet), data, scale=10)
    assert_close(waverec2(expected, wavelet), ptwt.waverec2(actual, wavelet), scale=10)


@pytest.mark.parametrize("axes", [(-2, -1), (0, 2), (2, 1)])
def test_axes_and_odd_sides(axes: tuple[int, int]) -> None:
    data = torch.randn(9, 6, 7, dtype=torch.float64)
    actual = wavedec2(data, "haar", mode="symmetric", level=2, axes=axes)
    expected = ptwt.wavedec2(data, "haar", mode="symmetric", level=2, axes=axes)
    assert_close(actual[0], expected[0], scale=10)
    for one, two in zip(actual[1], expected[1], strict=True):
        assert_close(one, two, scale=10)
    assert_close(waverec2(actual, axes=axes), ptwt.waverec2(expected, "haar", axes=axes), scale=10)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="wavelet must be one of 'haar', 'db1', got 'db2'"):
        wavedec2(torch.ones(4, 4), "db2")
    with pytest.raises(ValueError, match="mode must be 'symmetric' or 'constant' for sides 5x4, got 'reflect'"):
        wavedec2(torch.ones(5, 4), "haar", level=1)
    with pytest.raises(ValueError, match="level must be from 1 to 16, got -1"):
        wavedec2(torch.ones(4, 4), "haar", level=-1)
    with pytest.raises(ValueError, match="at least two dimensions"):
        wavedec2(torch.ones(5), "haar")
    with pytest.raises(TypeError, match="as wavedec2 returns it"):
        waverec2([torch.ones(2, 2)])
