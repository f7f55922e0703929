"""Is LPIPS, per image, the package lpips' of the clamped reconstruction, in float32 and without a gradient?"""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from litevae import torchvision_shim
from litevae.evaluation.metrics import lpips_distance
from litevae.losses.perceptual import LpipsLoss, PerceptualConfig, build_perceptual

torchvision_shim.install()
lpips = pytest.importorskip("lpips")


@pytest.fixture(scope="module")
def perceptual() -> LpipsLoss:
    loss = build_perceptual(PerceptualConfig(trunk="random"))
    assert isinstance(loss, LpipsLoss)
    return loss


@pytest.fixture(scope="module")
def package(perceptual: LpipsLoss) -> Any:
    """The package's LPIPS, with our random trunk."""
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


def test_equals_the_package_per_image_of_the_clamped_reconstruction(perceptual: LpipsLoss, package: Any) -> None:
    reconstruction, image = pictures()
    expected = package(reconstruction.clamp(-1, 1), image).flatten()
    found = lpips_distance(perceptual, reconstruction.clone().requires_grad_(), image)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-8)
    assert not torch.allclose(found, package(reconstruction, image).flatten(), rtol=1e-3)


def test_one_image_does_not_depend_on_the_others_nor_on_training(perceptual: LpipsLoss) -> None:
    reconstruction, image = pictures()
    together = lpips_distance(perceptual.train(), reconstruction, image)
    alone = [lpips_distance(perceptual, reconstruction[i : i + 1], image[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=0)


def test_identical_images(perceptual: LpipsLoss) -> None:
    _, image = pictures()
    assert torch.equal(lpips_distance(perceptual, image, image), torch.zeros(3))


def test_autocast_changes_nothing(perceptual: LpipsLoss) -> None:
    reconstruction, image = pictures()
    expected = lpips_distance(perceptual, reconstruction, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lpips_distance(perceptual, reconstruction, image), expected)


def test_another_loss_is_refused() -> None:
    esrgan = build_perceptual(PerceptualConfig(kind="vgg19", trunk="random"))
    with pytest.raises(TypeError) as error:
        lpips_distance(esrgan, *pictures())
    assert str(error.value) == "perceptual must be LPIPS, got Vgg19Loss; build it with PerceptualConfig(kind='lpips')"


def test_a_small_image_is_refused(perceptual: LpipsLoss) -> None:
    with pytest.raises(ValueError, match="at least 16x16 pixels for the four poolings of VGG16, got 32x8"):
        lpips_distance(perceptual, torch.zeros(1, 3, 32, 8), torch.zeros(1, 3, 32, 8))
