"""Is SSIM scikit-image's with Wang's settings: 11x11 Gaussian window, sigma 1.5?"""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from litevae.evaluation.metrics import ssim


def test_equals_scikit_image_per_image() -> None:
    image = torch.rand(3, 3, 20, 27) * 2 - 1
    reconstruction = (image + torch.tensor([0.01, 0.2, 1.0]).view(3, 1, 1, 1) * torch.randn_like(image)).clamp(-1, 1)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2.0}
    expected = [
        structural_similarity(a.double().numpy(), b.double().numpy(), channel_axis=0, **settings)
        for a, b in zip(reconstruction, image, strict=True)
    ]
    np.testing.assert_allclose(ssim(reconstruction, image), expected, rtol=1e-6)


def test_identical_images() -> None:
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(ssim(image, image), torch.ones(2, dtype=torch.float64))


def test_image_smaller_than_the_window() -> None:
    with pytest.raises(ValueError, match="at least 11x11 pixels for SSIM's window, got 10x30"):
        ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))
