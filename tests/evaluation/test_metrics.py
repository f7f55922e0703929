"""Are PSNR and SSIM scikit-image's and LPIPS the package lpips', per image, by the protocols that they state?"""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from litevae import torchvision_shim
from litevae.evaluation.metrics import lpips_distance, psnr, ssim
from litevae.losses.perceptual import LpipsLoss, PerceptualConfig, build_perceptual

torchvision_shim.install()  # for lpips


def test_psnr_equals_scikit_image_per_image() -> None:
    x, y = (torch.rand(2, 4, 3, 9, 11) * 2 - 1).unbind()
    y[1] = (x[1] + 0.01 * y[1]).clamp(-1, 1)  # images of very different quality: their mean is not that of the errors
    expected = [
        peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=2) for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(psnr(x, y), expected, rtol=1e-12)


def test_psnr_clamps_the_reconstruction() -> None:
    image = torch.ones(1, 3, 4, 4)
    assert psnr(image * 1.5, image).item() == math.inf


def test_psnr_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="image's shape"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 16))


def test_ssim_equals_scikit_image_per_image() -> None:
    image = torch.rand(3, 3, 20, 27) * 2 - 1
    reconstruction = (image + torch.tensor([0.01, 0.2, 1.0]).view(3, 1, 1, 1) * torch.randn_like(image)).clamp(-1, 1)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2.0}
    expected = [
        structural_similarity(a.double().numpy(), b.double().numpy(), channel_axis=0, **settings)
        for a, b in zip(reconstruction, image, strict=True)
    ]
    np.testing.assert_allclose(ssim(reconstruction, image), expected, rtol=1e-6)


def test_ssim_of_identical_images() -> None:
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(ssim(image, image), torch.ones(2, dtype=torch.float64))


def test_ssim_refuses_an_image_smaller_than_the_window() -> None:
    with pytest.raises(ValueError, match="at least 11x11 pixels for SSIM's window, got 10x30"):
        ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))


@pytest.fixture(scope="module")
def perceptual() -> LpipsLoss:
    loss = build_perceptual(PerceptualConfig(trunk="random"))
    assert isinstance(loss, LpipsLoss)
    return loss


@pytest.fixture(scope="module")
def package(perceptual: LpipsLoss) -> Any:
    """The package's LPIPS, with our random trunk."""
    lpips = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    layers = {key: one for part in theirs.net.children() for key, one in part.named_children()}
    for key, layer in perceptual.trunk.convolutions.items():
        layers[key.removeprefix("features.")].load_state_dict(layer.state_dict())
    return theirs


def pictures() -> tuple[Tensor, Tensor]:
    """Reconstructions, of which some pixels leave [-1, 1], and their images."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 3, 33, 40, generator=generator) * 2 - 1
    noise = torch.tensor([0.02, 0.2, 1.0]).view(3, 1, 1, 1)
    return image + noise * torch.randn(image.shape, generator=generator), image


def test_lpips_equals_the_package_per_image_of_the_clamped_reconstruction(perceptual: LpipsLoss, package: Any) -> None:
    reconstruction, image = pictures()
    expected = package(reconstruction.clamp(-1, 1), image).flatten()
    found = lpips_distance(perceptual, reconstruction.clone().requires_grad_(), image)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-8)
    assert not torch.allclose(found, package(reconstruction, image).flatten(), rtol=1e-3)


def test_lpips_of_one_image_does_not_depend_on_the_others_nor_on_training(perceptual: LpipsLoss) -> None:
    reconstruction, image = pictures()
    together = lpips_distance(perceptual.train(), reconstruction, image)
    alone = [lpips_distance(perceptual, reconstruction[i : i + 1], image[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=0)


def test_lpips_of_identical_images(perceptual: LpipsLoss) -> None:
    _, image = pictures()
    assert torch.equal(lpips_distance(perceptual, image, image), torch.zeros(3))


def test_lpips_ignores_autocast(perceptual: LpipsLoss) -> None:
    reconstruction, image = pictures()
    expected = lpips_distance(perceptual, reconstruction, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lpips_distance(perceptual, reconstruction, image), expected)


def test_lpips_refuses_another_loss() -> None:
    esrgan = build_perceptual(PerceptualConfig(kind="vgg19", trunk="random"))
    with pytest.raises(TypeError) as error:
        lpips_distance(esrgan, *pictures())
    assert str(error.value) == "perceptual must be LPIPS, got Vgg19Loss; build it with PerceptualConfig(kind='lpips')"


def test_lpips_refuses_a_small_image(perceptual: LpipsLoss) -> None:
    with pytest.raises(ValueError, match="at least 16x16 pixels for the poolings of VGG16, got 32x8"):
        lpips_distance(perceptual, torch.zeros(1, 3, 32, 8), torch.zeros(1, 3, 32, 8))
