"""Is the wavelet term the Charbonnier loss on PyWavelets' H, V and D, with a gradient everywhere?"""

import numpy as np
import pytest
import pywt
import torch

from litevae.losses import wavelet_charbonnier_loss
from litevae_kernels import haar_dwt2d


def sub_bands(x: torch.Tensor) -> torch.Tensor:
    return haar_dwt2d(x, 1, scaling="mean")[0]


@pytest.mark.parametrize("eps", [1e-6, 0.05])
def test_equals_pywavelets_in_float64(eps: float) -> None:
    x, y = torch.randn(2, 2, 3, 8, 10, dtype=torch.float64).unbind()
    details = [pywt.dwt2(image.numpy(), "haar")[1] for image in (x, y)]  # orthonormal; the paper halves level 1
    difference = (np.stack(details[0]) - np.stack(details[1])) / 2
    expected = np.sqrt(difference**2 + eps**2).mean()
    loss = wavelet_charbonnier_loss(sub_bands(x), sub_bands(y), eps)
    assert loss.item() == pytest.approx(expected, rel=1e-13)


def test_gradient_reaches_the_reconstruction() -> None:
    """The paper's pseudocode transforms without gradient (with_grad=False), so this term would train nothing."""
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: wavelet_charbonnier_loss(sub_bands(x), sub_bands(y), 1e-3), (x,))
    wavelet_charbonnier_loss(sub_bands(x), sub_bands(y)).backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_low_band_does_not_count() -> None:
    x = torch.zeros(1, 12, 4, 4)
    brighter = x.clone()
    brighter[:, :3] += 1
    assert wavelet_charbonnier_loss(brighter, x, eps=1e-6).item() == pytest.approx(1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_identical_bands_have_a_finite_gradient(dtype: torch.dtype) -> None:
    """eps^2 = 1e-12 is zero in float16: there the square root's gradient at 0 would be NaN."""
    x = torch.zeros(1, 12, 4, 4, dtype=dtype, requires_grad=True)
    loss = wavelet_charbonnier_loss(x, torch.zeros_like(x))
    loss.backward()
    assert x.grad is not None
    assert loss.item() == pytest.approx(1e-6)
    assert (x.grad == 0).all()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        wavelet_charbonnier_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="eps must be at least"):
        wavelet_charbonnier_loss(torch.zeros(1, 12, 4, 4), torch.zeros(1, 12, 4, 4), eps=0.0)
