"""Is the posterior diffusers' in float32, and finite in float16?"""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from litevae import DiagonalGaussian


@pytest.fixture
def moments() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 8, 4, 5, generator=generator) * 20  # log-variances on both sides of the clamp


def test_float32_is_diffusers(moments):
    ours, theirs = DiagonalGaussian(moments), DiagonalGaussianDistribution(moments)
    for name in ("mean", "logvar", "std", "var"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=0)
    torch.testing.assert_close(ours.mode(), theirs.mode(), rtol=0, atol=0)
    torch.testing.assert_close(ours.kl(), theirs.kl(), rtol=1e-6, atol=0)
    samples = [posterior.sample(torch.Generator().manual_seed(7)) for posterior in (ours, theirs)]
    torch.testing.assert_close(samples[0], samples[1], rtol=0, atol=0)


def test_kl_is_torch_distributions_per_sample(moments):
    moments = moments.double() / 10
    posterior = DiagonalGaussian(moments)
    normal = torch.distributions.Normal(moments[:, :4], (moments[:, 4:] / 2).exp())
    standard = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    expected = torch.distributions.kl_divergence(normal, standard).sum(dim=(1, 2, 3))
    assert posterior.kl().shape == (3,)
    torch.testing.assert_close(posterior.kl(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("logvar", [-60000.0, 11.5, 60000.0])
def test_half_precision_is_finite_and_as_in_float32(dtype, logvar):
    moments = torch.full((2, 8, 16, 16), 100.0)
    moments[:, 4:] = logvar
    half = DiagonalGaussian(moments.to(dtype))
    full = DiagonalGaussian(moments.to(dtype).float())
    sample = half.sample(torch.Generator().manual_seed(0))
    assert sample.dtype == half.mode().dtype == dtype
    assert sample.isfinite().all()
    limit = torch.finfo(dtype).max
    expected = full.sample(torch.Generator().manual_seed(0)).clamp(-limit, limit).to(dtype)
    torch.testing.assert_close(sample, expected, rtol=0, atol=0)
    assert half.kl().dtype == torch.float32
    assert half.kl().isfinite().all()
    torch.testing.assert_close(half.kl(), full.kl(), rtol=0, atol=0)


def test_samples_have_the_mean_and_the_spread():
    moments = torch.zeros(1, 2, 200, 200)
    moments[:, 0], moments[:, 1] = 3.0, torch.tensor(0.25).log()
    sample = DiagonalGaussian(moments).sample(torch.Generator().manual_seed(0))
    assert float(sample.mean()) == pytest.approx(3, abs=5 * 0.5 / 200)  # five standard errors
    assert float(sample.std()) == pytest.approx(0.5, abs=0.01)


def test_one_generator_for_each_sample(moments):
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    batch = DiagonalGaussian(moments).sample(generators)
    single = DiagonalGaussian(moments[1:2]).sample(torch.Generator().manual_seed(2))
    torch.testing.assert_close(batch[1:2], single, rtol=0, atol=0)


def test_gradients_reach_mean_and_logvar():
    moments = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: DiagonalGaussian(m).sample(torch.Generator().manual_seed(0)), moments)
    assert torch.autograd.gradcheck(lambda m: DiagonalGaussian(m).kl(), moments)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(1, 3, 2, 2), ValueError, "an even number of channels"),
        (torch.zeros(4, 2, 2), ValueError, r"parameters must have 4 dimensions \[B, 2C, h, w\]"),
        (torch.zeros(1, 4, 2, 2, dtype=torch.int32), TypeError, "parameters must be a floating-point tensor"),
        (None, TypeError, "parameters must be a floating-point tensor"),
    ],
)
def test_bad_moments_are_refused(bad, error, message):
    with pytest.raises(error, match=message):
        DiagonalGaussian(bad)
