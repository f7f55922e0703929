"""Is the Gaussian term the L1 distance of x - G(x) and y - G(y), with SciPy's blur?"""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from litevae import torchvision_shim
from litevae.losses import gaussian_high_pass_loss
from litevae.losses.gaussian import gaussian_blur


def scipy_blur(x: np.ndarray) -> np.ndarray:
    """5x5, sigma 1, borders reflected without repeating the edge (SciPy calls that "mirror")."""
    for axis in (-2, -1):
        x = gaussian_filter1d(x, sigma=1.0, radius=2, axis=axis, mode="mirror")
    return x


def test_equals_scipy_in_float64() -> None:
    x, y = torch.randn(2, 2, 3, 9, 12, dtype=torch.float64).unbind()
    expected = np.abs((x.numpy() - scipy_blur(x.numpy())) - (y.numpy() - scipy_blur(y.numpy()))).mean()
    assert gaussian_high_pass_loss(x, y).item() == pytest.approx(expected, rel=1e-13)


def test_blur_equals_torchvision() -> None:
    torchvision_shim.install()
    from torchvision.transforms.functional import gaussian_blur as torchvision_blur

    x = torch.rand(2, 3, 16, 11)
    torch.testing.assert_close(gaussian_blur(x, 5, 1.0), torchvision_blur(x, [5, 5], [1.0, 1.0]), rtol=1e-5, atol=1e-6)


def test_gradient() -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gaussian_high_pass_loss(x, torch.zeros_like(x)), (x,))


def test_half_precision_is_computed_in_float32() -> None:
    x, y = torch.rand(2, 1, 3, 32, 32).bfloat16().unbind()
    loss = gaussian_high_pass_loss(x, y)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, gaussian_high_pass_loss(x.float(), y.float()), rtol=1e-6, atol=0)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="larger than 2 pixels"):
        gaussian_high_pass_loss(torch.zeros(1, 3, 2, 8), torch.zeros(1, 3, 2, 8))
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        gaussian_blur(torch.zeros(1, 3, 8, 8), 4, 1.0)
