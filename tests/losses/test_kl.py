"""Is the KL term torch.distributions' KL, and are its two reductions the factor C*H*W apart?"""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from litevae.losses import kl_loss
from litevae.models.latent import DiagonalGaussian


@pytest.fixture
def moments() -> torch.Tensor:
    return torch.randn(3, 8, 4, 5, dtype=torch.float64)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.zeros(3, 3, 32, 40, dtype=torch.float64)


def test_sum_equals_torch_distributions(moments: torch.Tensor, image: torch.Tensor) -> None:
    mean, logvar = moments.chunk(2, dim=1)
    normal = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), normal).sum((1, 2, 3)).mean()
    torch.testing.assert_close(kl_loss(DiagonalGaussian(moments), image, "sum"), expected, rtol=1e-6, atol=0)


def test_reductions_differ_by_the_size_of_an_image(moments: torch.Tensor, image: torch.Tensor) -> None:
    """The usual mix-up makes KL 200,000 times too strong at 256x256."""
    posterior = DiagonalGaussian(moments)
    ratio = kl_loss(posterior, image, "sum") / kl_loss(posterior, image, "per_image_element")
    assert ratio.item() == pytest.approx(3 * 32 * 40)


def test_batch_is_averaged(moments: torch.Tensor, image: torch.Tensor) -> None:
    once = kl_loss(DiagonalGaussian(moments), image, "per_image_element")
    twice = kl_loss(DiagonalGaussian(torch.cat([moments, moments])), torch.cat([image, image]), "per_image_element")
    torch.testing.assert_close(once, twice)


def test_unknown_reduction(moments: torch.Tensor, image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="'per_image_element', 'sum', got 'mean'"):
        kl_loss(DiagonalGaussian(moments), image, "mean")
