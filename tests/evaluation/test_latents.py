"""Are the statistics of latents what NumPy, SciPy and torch make of all of them at once, in float64?"""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from litevae import DiagonalGaussian, LiteVAE
from litevae.evaluation.latents import NoScaleError, Statistics, measure_latents
from litevae.evaluation.set_metric import Batch

CPU = torch.device("cpu")
MEANS, SPREADS, NOISE = (1000.0, -0.5, 0.02), (2.0, 0.25, 1e-3), (0.5, 1.0, 2e-3)


class Known(nn.Module):
    """Channel c of the latent is N(MEANS + SPREADS * channel c of the image, NOISE^2)."""

    def __init__(self, means: tuple[float, ...] = MEANS, spreads: tuple[float, ...] = SPREADS) -> None:
        super().__init__()
        self.means, self.spreads = (torch.tensor(values).view(1, 3, 1, 1) for values in (means, spreads))
        self.seen_training: list[bool] = []

    def encode(self, image: Tensor) -> Any:
        self.seen_training.append(self.training)
        logvar = 2 * torch.tensor(NOISE).log().view(1, 3, 1, 1).expand_as(image)
        moments = torch.cat([self.means + self.spreads * image, logvar], dim=1)
        return SimpleNamespace(latent_dist=DiagonalGaussian(moments))


def images(count: int = 7) -> Tensor:
    return torch.randn(count, 3, 6, 4, generator=torch.Generator().manual_seed(0))


def test_a_known_encoder_has_its_scale() -> None:
    pixels, model = images(), Known()
    found = measure_latents(model, [pixels[:4], pixels[4:6], pixels[6:]], CPU)
    means = model.encode(pixels).latent_dist.mean.double()
    # Whatever the noise: the variance of the means over all images and places, and the noise's own.
    variance = means.var(dim=(0, 2, 3), correction=0).numpy() + np.square(NOISE)
    assert found.images == 7
    np.testing.assert_allclose(found.channel_means, means.mean(dim=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(np.square(found.channel_stds), variance, rtol=1e-6)  # float32's exp(logvar)
    assert found.mean == pytest.approx(means.mean().item(), rel=1e-12)
    assert found.std**2 == pytest.approx(means.var(correction=0).item() + np.square(NOISE).mean(), rel=1e-6)
    assert found.scaling_factor == 1 / found.std


def test_samples_have_the_scale_that_is_measured() -> None:
    """LDM's formula on samples: 1 / z.flatten().std()."""
    torch.manual_seed(0)
    model = LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=3)
    pixels = torch.rand(8, 3, 32, 16) * 2 - 1
    found = measure_latents(model, pixels.split(3), CPU)
    with torch.no_grad():
        posterior = model.eval().encode(pixels).latent_dist
        samples = torch.cat([posterior.sample() for _ in range(400)]).double()  # 76,800 elements
    # Six standard errors of a variance of 25,600 normal numbers, a channel: 6 sqrt(2 / 25600), half of it for stds.
    assert 1 / samples.flatten().std().item() == pytest.approx(found.scaling_factor, rel=0.015)
    np.testing.assert_allclose(found.channel_stds, samples.std(dim=(0, 2, 3)), rtol=0.027)
    np.testing.assert_allclose(found.channel_means, samples.mean(dim=(0, 2, 3)), atol=6 * found.std / 160)


def test_batches_change_nothing() -> None:
    pixels = images()
    assert len({measure_latents(Known(), pixels.split(size), CPU) for size in (1, 3, 7)}) == 1


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_measured_in_eval_mode_and_left_in_its_own(training: bool) -> None:
    model = Known().train(training)
    measure_latents(model, [images()], CPU)
    assert (model.seen_training, model.training) == ([False], training)


def test_pixels_of_8_bits_mean_what_they_mean_to_encode() -> None:
    torch.manual_seed(0)
    model = LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8), layers_per_block=1)
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    found, expected = (measure_latents(model, [batch], CPU) for batch in (pixels, pixels.float() / 127.5 - 1))
    np.testing.assert_allclose(found.channel_stds, expected.channel_stds, rtol=1e-5)


def test_latents_without_a_scale_are_refused() -> None:
    constant = Known(spreads=(1.0, 0.0, 1.0))
    encode = constant.encode
    constant.encode = lambda image: SimpleNamespace(  # type: ignore[method-assign]
        latent_dist=DiagonalGaussian(encode(image).latent_dist.parameters, deterministic=True)
    )
    for model in (constant, Known(means=(0.0, float("nan"), 0.0)), Known(means=(0.0, float("inf"), 0.0))):
        with pytest.raises(NoScaleError, match=r"latents must be finite and vary in each channel .* got standard"):
            measure_latents(model, [images()], CPU)
    with pytest.raises(ValueError, match="batches must hold at least one image"):
        measure_latents(Known(), [], CPU)


def batch_of(count: int = 5) -> Batch:
    """Correlated, skewed channels, one of them constant."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(count, 2, 6, 4, generator=generator)
    means = torch.stack([base[:, 0], base[:, 0] + 0.5 * base[:, 1].exp(), torch.full_like(base[:, 0], 0.1)], dim=1)
    stds = torch.rand(means.shape, generator=generator) + 0.1
    images = torch.zeros(count, 3, 48, 32)
    return Batch(tuple(range(count)), images, images, means, means, stds)


def test_moments_are_those_of_numpy_and_scipy() -> None:
    batch, metric = batch_of(), Statistics()
    metric.add(batch)
    found = metric.values()["statistics"]
    assert batch.means is not None
    assert batch.stds is not None
    x = batch.means.double().transpose(0, 1).flatten(1).numpy()  # [C, B * h * w]
    var = batch.stds.double().square().transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(found["channel_means"], x.mean(1), rtol=1e-12)
    np.testing.assert_allclose(np.square(found["channel_stds"]), x.var(1) + var.mean(1), rtol=1e-12)
    np.testing.assert_allclose(np.square(found["posterior_stds"]), var.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found["covariance"], np.cov(x, ddof=0), rtol=1e-10, atol=1e-14)
    correlation = np.array(found["correlation"], dtype=float)[:2, :2]
    np.testing.assert_allclose(correlation, np.corrcoef(x[:2]), rtol=1e-10)
    np.testing.assert_allclose(found["skewness"][:2], scipy.stats.skew(x[:2], axis=1), rtol=1e-8)
    np.testing.assert_allclose(found["excess_kurtosis"][:2], scipy.stats.kurtosis(x[:2], axis=1), rtol=1e-8)
    assert found["skewness"][2] is found["excess_kurtosis"][2] is found["correlation"][2][2] is None
    assert found["stds_of_means"][2] == 0.0
    assert (found["images"], found["active_channels"]) == (5, 2)
    whole = (x.var() + var.mean()) ** 0.5
    assert (found["std"], found["scaling_factor"]) == pytest.approx((whole, 1 / whole), rel=1e-12)
    json.dumps(found, allow_nan=False)


def test_kl_is_torch_s_closed_form() -> None:
    batch, metric = batch_of(), Statistics()
    metric.add(batch)
    found = metric.values()["statistics"]
    posterior = torch.distributions.Normal(batch.means.double(), batch.stds.double())  # type: ignore[union-attr]
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(torch.zeros(()), torch.ones(())))
    np.testing.assert_allclose(found["channel_kl"], kl.mean(dim=(0, 2, 3)), rtol=1e-12)
    assert found["kl"] == pytest.approx(kl.mean().item(), rel=1e-12)


def test_a_deterministic_encoder_has_no_finite_kl() -> None:
    batch, metric = batch_of(), Statistics()
    metric.add(dataclasses.replace(batch, stds=torch.zeros_like(batch.images[:, :, :6, :4])))
    found = metric.values()["statistics"]
    assert (found["kl"], found["channel_kl"], found["posterior_stds"]) == (None, [None] * 3, [0.0] * 3)
    assert found["channel_stds"][0] > 0


def test_the_rounding_of_sums_is_no_spread() -> None:
    """In constant channels the mean of squares and the square of the mean do not round alike."""
    metric = Statistics()
    constants = torch.tensor([0.7, 0.1, 123.456, -3.3, 0.9, 17.3, -0.01], dtype=torch.float64)
    means = constants.view(1, -1, 1, 1).expand(9, -1, 31, 17)
    metric.add_posteriors(means, torch.zeros_like(means))
    elements = metric.sums["elements"]
    assert (metric.sums["products"].diag() / elements > (metric.sums["mean^1"] / elements) ** 2).any()
    assert metric.values()["statistics"]["stds_of_means"] == [0.0] * 7
    with pytest.raises(NoScaleError):
        metric.scale()


def test_a_channel_is_active_above_a_variance_of_a_hundredth() -> None:
    metric = Statistics()
    signs = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    metric.add_posteriors(signs * torch.tensor([0.11, 0.09, 1.0]).view(3, 1, 1), torch.ones(2, 3, 1, 1))
    assert metric.values()["statistics"]["active_channels"] == 2


def test_processes_join_their_statistics() -> None:
    batch = batch_of()
    assert batch.means is not None
    assert batch.stds is not None
    whole, part, other = Statistics(), Statistics(), Statistics()
    whole.add(batch)
    part.add_posteriors(batch.means[:2], batch.stds[:2])
    other.add_posteriors(batch.means[2:], batch.stds[2:])
    part.merge(other.sums, other.kept)
    torch.testing.assert_close(part.sums, whole.sums, rtol=1e-12, atol=0)


def test_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="images of statistics must be at least one, got 0"):
        Statistics().values()
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"batch.means must be given for a metric of latents, got None; leave"):
        Statistics().add(Batch((0,), images, images))
