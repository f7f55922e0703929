"""Is the spectrum SciPy's, and does white noise have a flat one?"""

import json

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from litevae.evaluation.set_metric import Batch
from litevae.evaluation.spectrum import BINS, Spectrum, dct, radii


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def batch_of(means: Tensor, images: Tensor) -> Batch:
    return Batch(tuple(range(len(means))), images, images, means, means, torch.ones_like(means))


def red(count: int, channels: int, height: int, width: int, exponent: float) -> Tensor:
    """Noise whose DCT has power radius^exponent, and a large mean, by SciPy."""
    i, j = np.meshgrid(np.arange(height) / (height - 1), np.arange(width) / (width - 1), indexing="ij")
    radius = np.hypot(i, j) / np.sqrt(2)
    radius[0, 0] = 1e-4
    coefficients = noise(count, channels, height, width).double().numpy() * radius ** (exponent / 2)
    return torch.from_numpy(scipy.fft.idctn(coefficients, axes=(2, 3), norm="ortho")).float()


@pytest.mark.parametrize(("size", "kept"), [((8, 8), (8, 8)), ((6, 9), (6, 9)), ((16, 24), (4, 5)), ((1, 3), (1, 2))])
def test_dct_is_scipys(size: tuple[int, int], kept: tuple[int, int]) -> None:
    x = noise(2, 3, *size).double()
    expected = scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")[..., : kept[0], : kept[1]]
    np.testing.assert_allclose(dct(x, *kept), expected, rtol=1e-12, atol=1e-12)


def test_power_is_that_of_scipys_coefficients_bin_by_bin() -> None:
    means, images = noise(5, 2, 24, 20) * torch.tensor([1.0, 3.0]).view(2, 1, 1) + 7, noise(5, 3, 48, 40)
    metric = Spectrum()
    metric.add(batch_of(means[:2], images[:2]))
    metric.add(batch_of(means[2:], images[2:]))
    found = metric.values()["spectrum"]
    radius = np.array([[np.hypot(i / 23, j / 19) / np.sqrt(2) for j in range(20)] for i in range(24)])
    bins = np.minimum((radius * BINS).astype(int), BINS - 1)
    bins[0, 0] = -1
    for name, x in (("latent_power", means), ("image_power", images)):
        power = scipy.fft.dctn(x.double().numpy(), axes=(2, 3), norm="ortho")[..., :24, :20] ** 2
        by_bin = np.array([power[..., bins == index].mean() for index in range(BINS)])
        np.testing.assert_allclose(found[name], by_bin / by_bin.sum(), rtol=1e-10)
    p, q = np.array(found["image_power"]), np.array(found["latent_power"])
    assert found["kl"] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-12)
    np.testing.assert_allclose(found["radius"], [radius[bins == index].mean() for index in range(BINS)], rtol=1e-12)
    json.dumps(found, allow_nan=False)


def test_slopes_are_those_of_the_noise() -> None:
    """White 0, red -2: within five standard errors of the power of a few hundred coefficients a bin."""
    means = torch.cat([red(40, 1, 32, 32, -2.0), red(40, 1, 32, 32, 0.0)], dim=1)
    metric = Spectrum()
    metric.add(batch_of(means, red(40, 3, 64, 64, -2.0)))
    found = metric.values()["spectrum"]
    assert found["channel_slopes"] == pytest.approx([-2.0, 0.0], abs=0.15)
    assert found["image_slope"] == pytest.approx(-2.0, abs=0.15)
    divergences = []
    for channel in (0, 1):
        one = Spectrum()
        one.add(batch_of(means[:, channel : channel + 1], red(40, 3, 64, 64, -2.0)))
        divergences.append(one.values()["spectrum"]["kl"])
    assert 0 <= divergences[0] < 0.01
    assert divergences[1] > 1


def test_the_mean_of_a_latent_counts_for_nothing() -> None:
    images, results = noise(3, 3, 32, 32), []
    for offset in (0.0, 100.0):
        metric = Spectrum()
        metric.add(batch_of(noise(3, 2, 16, 16) + offset, images))
        results.append(metric.values()["spectrum"]["latent_power"])
    assert results[0] == pytest.approx(results[1], rel=1e-4)  # float32 latents around 100


def test_a_small_latent_has_empty_bins() -> None:
    metric = Spectrum()
    metric.add(batch_of(noise(3, 2, 4, 4), noise(3, 3, 32, 32)))
    found = metric.values()["spectrum"]
    filled = {min(int(radius * BINS), BINS - 1) for radius in radii(4, 4)[1:].tolist()}
    assert [power is not None for power in found["latent_power"]] == [index in filled for index in range(BINS)]
    assert sum(power for power in found["latent_power"] if power is not None) == pytest.approx(1)
    json.dumps(found, allow_nan=False)


def test_two_processes_have_the_state_of_one() -> None:
    means, images = noise(6, 2, 8, 8), noise(6, 3, 64, 64)
    whole, part, other = Spectrum(), Spectrum(), Spectrum()
    whole.add(batch_of(means, images))
    part.add(batch_of(means[:2], images[:2]))
    other.add(batch_of(means[2:], images[2:]))
    part.merge(other.sums, other.kept)
    torch.testing.assert_close(part.sums, whole.sums, rtol=1e-12, atol=0)


def test_without_latents_it_is_refused() -> None:
    images = noise(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"batch.means must be given for a metric of latents, got None; leave"):
        Spectrum().add(Batch((0, 1), images, images))
    with pytest.raises(ValueError, match="images of spectrum must be at least one, got 0"):
        Spectrum().values()
