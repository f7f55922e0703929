"""Is PSNR scikit-image's, per image, with the range that the docstring states?"""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from litevae.evaluation.metrics import psnr


def test_equals_scikit_image_per_image() -> None:
    x, y = (torch.rand(2, 4, 3, 9, 11) * 2 - 1).unbind()
    y[1] = (x[1] + 0.01 * y[1]).clamp(-1, 1)  # images of very different quality: their mean is not that of the errors
    expected = [
        peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=2) for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(psnr(x, y), expected, rtol=1e-12)


def test_reconstruction_is_clamped() -> None:
    image = torch.ones(1, 3, 4, 4)
    assert psnr(image * 1.5, image).item() == math.inf


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="image's shape"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 16))
