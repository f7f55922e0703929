"""Are iFID's neighbours, its draws and its midpoints what its definition says?"""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp
from scipy.special import softmax
from torch import Tensor, nn

from litevae.evaluation.feature_distances import FrechetFeatureDistance, ImageFeatures
from litevae.evaluation.interpolation_distance import InterpolationDistance, spherical_midpoint
from litevae.evaluation.set_metric import Batch

SHAPE = (2, 4, 4)


class MeanColours(nn.Module):
    """uint8 [B, 3, H, W] to [B, 4]: the mean of each quarter of the image."""

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(pixels.float().mean(1, keepdim=True), 2).flatten(1)


class Enlarge:
    """Latents [B, 2, 4, 4] to images [B, 3, 8, 8]."""

    def decode(self, latents: Tensor) -> Tensor:
        return nn.functional.interpolate(latents[:, [0, 1, 0]], scale_factor=2).clamp(-1, 1)


def ifid(training_latents: Tensor, seed: int = 0) -> InterpolationDistance:
    return InterpolationDistance(ImageFeatures(MeanColours()), Enlarge(), training_latents, seed)


def batch_of(latents: Tensor, first: int = 0) -> Batch:
    images = torch.rand(len(latents), 3, 8, 8) * 2 - 1
    return Batch(tuple(range(first, first + len(latents))), images, torch.zeros_like(images), latents)


def test_neighbours_are_the_nearest_by_cosine() -> None:
    training, latents = torch.randn(200, *SHAPE), torch.randn(30, *SHAPE)
    training *= torch.rand(200, 1, 1, 1) + 0.1  # cosine and distance disagree
    _, drawn = ifid(training).pairs(batch_of(latents))
    rows, known = latents.flatten(1).numpy(), training.flatten(1).numpy()
    cosines = rows @ known.T / np.linalg.norm(known, axis=1)
    for latent, cosine in zip(drawn.flatten(1).numpy(), cosines, strict=True):
        nearest = known[np.argsort(cosine)[-10:]]
        assert (nearest == latent).all(1).sum() == 1


def test_draws_follow_the_softmax_of_squared_errors() -> None:
    directions = torch.randn(1, *SHAPE) + 0.1 * torch.randn(10, *SHAPE)
    training = directions * torch.linspace(0.2, 3, 10).view(10, 1, 1, 1)
    latent, count = torch.randn(SHAPE), 2000
    _, drawn = ifid(training).pairs(batch_of(latent.expand(count, *SHAPE)))
    expected = softmax(-(latent - training).square().mean((1, 2, 3)).double().numpy())
    places = Counter((row == training).flatten(1).all(1).nonzero().item() for row in drawn)
    assert places.total() == count
    for place, probability in enumerate(expected):
        deviation = (probability * (1 - probability) / count) ** 0.5
        assert abs(places[place] / count - probability) < 5 * deviation + 1 / count


def test_a_draw_is_a_function_of_seed_and_image() -> None:
    training, latents = torch.randn(50, *SHAPE), torch.randn(40, *SHAPE)
    batch = batch_of(latents)
    _, drawn = ifid(training).pairs(batch)
    parts = [ifid(training).pairs(batch_of(part, first))[1] for first, part in ((0, latents[:7]), (7, latents[7:]))]
    assert torch.equal(torch.cat(parts), drawn)
    assert not torch.equal(ifid(training, seed=1).pairs(batch)[1], drawn)


def test_the_midpoint_is_scipys() -> None:
    a, b = torch.randn(2, 20, *SHAPE, dtype=torch.float64)
    midpoints = spherical_midpoint(a, b)
    unit = spherical_midpoint(*(x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for x in (a, b)))
    for first, second, one, middle in zip(*(x.flatten(1).numpy() for x in (a, b, unit, midpoints)), strict=True):
        first_norm, second_norm = np.linalg.norm(first), np.linalg.norm(second)
        expected = geometric_slerp(first / first_norm, second / second_norm, [0.5])[0]
        np.testing.assert_allclose(one, expected, atol=1e-12)
        angle = np.arccos(first @ second / first_norm / second_norm)
        np.testing.assert_allclose(middle, np.sin(angle / 2) / np.sin(angle) * (first + second), atol=1e-12)
    torch.testing.assert_close(spherical_midpoint(a, 3 * a), 2 * a)


def test_it_is_rfid_of_the_decoded_midpoints() -> None:
    training, batch = torch.randn(50, *SHAPE), batch_of(torch.randn(30, *SHAPE))
    metric = ifid(training)
    metric.add(batch)
    decoded = Enlarge().decode(spherical_midpoint(*metric.pairs(batch)))
    rfid = FrechetFeatureDistance(ImageFeatures(MeanColours()))
    rfid.add(replace(batch, reconstructions=decoded))
    assert metric.values() == {"ifid": rfid.values()["rfid"]}
    assert metric.values()["ifid"] > 1
    given = InterpolationDistance(metric.features, Enlarge(), training, reference=rfid.reference)
    given.add(batch)
    assert given.values() == metric.values()


def test_bad_latents_are_named() -> None:
    with pytest.raises(ValueError, match="training_latents must hold at least 10 latents, got 9"):
        ifid(torch.randn(9, *SHAPE))
    with pytest.raises(ValueError, match=re.escape("training_latents must have shape [N, C, h, w], got")):
        ifid(torch.randn(20, 4))
    metric = ifid(torch.randn(10, *SHAPE))
    with pytest.raises(ValueError, match=re.escape("latents must have shape [B, 2, 4, 4] as those of training, got a")):
        metric.add(batch_of(torch.randn(3, 2, 8, 8)))
    with pytest.raises(ValueError, match=r"latents must have shape .* got None"):
        metric.add(replace(batch_of(torch.randn(3, *SHAPE)), latents=None))


def test_what_is_said_beside_the_result() -> None:
    metric = ifid(torch.randn(12, *SHAPE))
    assert metric.warnings() == [
        "ifid: neighbours are of 12 training latents, in publications of 1281167; among more, nearer ones are found"
    ]
    metric.add(batch_of(torch.randn(4, *SHAPE)))
    assert metric.warnings()[0].startswith("ifid: 4 images are too few for Gaussians of 4 numbers")
    assert len(metric.warnings()) == 2
    assert ifid(torch.zeros(1, 1, 1, 1).expand(1_281_167, 1, 1, 1)).warnings() == []
