"""Is the wavelet term the Charbonnier loss on PyWavelets' H, V and D, with a gradient everywhere?"""

import numpy as np
import pytest
import pywt
import torch

from litevae.losses import wavelet_charbonnier_loss
from litevae_kernels import haar_dwt2d, haar_idwt2d


def sub_bands(x: torch.Tensor) -> torch.Tensor:
    return haar_dwt2d(x, 1, scaling="mean")[0]


@pytest.mark.parametrize("eps", [1e-6, 0.05])
@pytest.mark.parametrize("given", [False, True])
def test_equals_pywavelets_in_float64(eps: float, given: bool) -> None:
    x, y = torch.randn(2, 2, 3, 8, 10, dtype=torch.float64).unbind()
    torch.testing.assert_close(sub_bands(x)[:, :3], torch.nn.functional.avg_pool2d(x, 2), rtol=0, atol=1e-12)
    details = [pywt.dwt2(image.numpy(), "haar")[1] for image in (x, y)]  # orthonormal; the paper halves level 1
    difference = (np.stack(details[0]) - np.stack(details[1])) / 2
    expected = np.sqrt(difference**2 + eps**2).mean()
    loss = wavelet_charbonnier_loss(x, y, eps=eps, wavelet=sub_bands(x) if given else None)
    assert loss.item() == pytest.approx(expected, rel=1e-13)


def test_gradient_reaches_the_reconstruction() -> None:
    """The paper's pseudocode transforms without gradient (with_grad=False), so this term would train nothing."""
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: wavelet_charbonnier_loss(x, y, eps=1e-3), (x,))
    wavelet_charbonnier_loss(x, y).backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_value_and_gradient_are_those_of_the_decoder_s_bands() -> None:
    """Bit by bit: a decoder that ends in sub-bands is trained by the same numbers as one that ends in the image."""
    y = torch.rand(2, 3, 8, 6)
    values, gradients = [], []
    for given in (False, True):
        x = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = wavelet_charbonnier_loss(x, y, wavelet=sub_bands(x) if given else None)
        loss.backward()
        values.append(loss.detach())
        gradients.append(x.grad)
    assert torch.equal(*values)
    assert torch.equal(*gradients)


def test_low_band_does_not_count() -> None:
    image = torch.zeros(1, 3, 8, 8)
    assert wavelet_charbonnier_loss(image + 1, image, eps=1e-6).item() == pytest.approx(1e-6)
    bands = torch.zeros(1, 12, 4, 4)
    bands[:, :3] += 1
    assert wavelet_charbonnier_loss(image, image, eps=1e-6, wavelet=bands).item() == pytest.approx(1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("given", [False, True])
def test_identical_bands_have_a_finite_gradient(dtype: torch.dtype, given: bool) -> None:
    """eps^2 = 1e-12 is zero in float16: there the square root's gradient at 0 would be NaN."""
    x = torch.zeros(1, 12 if given else 3, 4, 4, dtype=dtype, requires_grad=True)
    image = haar_idwt2d(torch.zeros(1, 12, 4, 4, dtype=dtype)) if given else torch.zeros(1, 3, 4, 4, dtype=dtype)
    loss = wavelet_charbonnier_loss(image if given else x, image, wavelet=x if given else None)
    loss.backward()
    assert x.grad is not None
    assert loss.item() == pytest.approx(1e-6)
    assert (x.grad == 0).all()


def test_wrong_arguments() -> None:
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"wavelet must have the shape of the image's sub-bands \(1, 12, 2, 2\)"):
        wavelet_charbonnier_loss(image, image, wavelet=torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="reconstruction must have the image's shape"):
        wavelet_charbonnier_loss(torch.zeros(1, 1, 4, 4), image)
    with pytest.raises(ValueError, match="eps must be at least"):
        wavelet_charbonnier_loss(image, image, eps=0.0)
