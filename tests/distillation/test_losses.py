"""Are the terms of a distillation what torch.distributions and plain arithmetic say?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from litevae.distillation.config import DistillationLossConfig
from litevae.distillation.evaluation import LatentErrors
from litevae.distillation.losses import DistillationLoss, kl_per_element
from litevae.models.latent import DiagonalGaussian

STDS = torch.tensor([0.5, 2.0])


def posterior(seed: int) -> DiagonalGaussian:
    return DiagonalGaussian(torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed)))


def normal(gaussian: DiagonalGaussian) -> Normal:
    return Normal(gaussian.mean.double(), (gaussian.logvar.double() / 2).exp())


def test_the_kl_term_is_that_of_the_teacher_to_the_student() -> None:
    student, teacher = posterior(0), posterior(1)
    expected = kl_divergence(normal(teacher), normal(student)).mean()
    torch.testing.assert_close(kl_per_element(teacher, student).double(), expected, rtol=1e-5, atol=0)
    config = DistillationLossConfig(mean_weight=0, logvar_weight=0, kl_weight=2.0, reconstruction_weight=0)
    total, terms = DistillationLoss(config, STDS)(student, teacher, torch.zeros(3, 3, 64, 64))
    torch.testing.assert_close(total.double(), 2 * expected, rtol=1e-5, atol=0)
    assert list(terms) == ["total", "kl"]


def test_the_mean_is_measured_in_the_channels_own_standard_deviations() -> None:
    student, teacher = posterior(0), posterior(1)
    config = DistillationLossConfig(mean_weight=3.0, logvar_weight=0.5, reconstruction_weight=0)
    total, terms = DistillationLoss(config, STDS)(student, teacher, torch.zeros(3, 3, 64, 64))
    channels = [((student.mean - teacher.mean)[:, c].double() / STDS[c]).square().mean() for c in range(2)]
    mean = (channels[0] + channels[1]) / 2
    logvar = (student.logvar - teacher.logvar).double().square().mean()
    torch.testing.assert_close(terms["mean"].double(), mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(total.double(), 3 * mean + 0.5 * logvar, rtol=1e-5, atol=0)


class Distance(nn.Module):
    name = "lpips_random_trunk"

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        return (reconstruction - image).square().mean()


def test_what_the_decoder_makes_is_compared_with_the_image() -> None:
    image = torch.rand(3, 3, 64, 64) * 2 - 1
    config = DistillationLossConfig(logvar_weight=0, reconstruction_weight=4.0, perceptual_weight=8.0)
    loss = DistillationLoss(config, STDS, Distance())
    total, terms = loss(posterior(0), posterior(0), image, image + 0.25)
    assert list(terms) == ["total", "mean", "reconstruction", "lpips_random_trunk"]
    torch.testing.assert_close(total, torch.tensor(4 * 0.25 + 8 * 0.0625), rtol=1e-5, atol=0)


def test_a_perceptual_weight_needs_its_network() -> None:
    with pytest.raises(ValueError, match=r"perceptual must be a network for loss.perceptual_weight=1"):
        DistillationLoss(DistillationLossConfig(perceptual_weight=1.0), STDS)


def test_latent_errors_are_those_of_all_positions_together() -> None:
    """Images of two sizes: not means over images. The cosine is numpy's correlation, up to the teacher's mean."""
    generator = torch.Generator().manual_seed(0)
    errors, pairs = LatentErrors(), []
    for side in (4, 6):
        shape = (1, 4, side, side)
        wanted = DiagonalGaussian(torch.randn(shape, generator=generator) + 3)
        got = DiagonalGaussian(wanted.parameters + 0.3 * torch.randn(shape, generator=generator))
        errors.add(wanted, got)
        pairs.append((wanted.mean[0].double().flatten(1), got.mean[0].double().flatten(1)))
    wanted, got = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))  # [2, 52]
    found = errors.values()
    variance = wanted.var(1, correction=0)
    expected = (wanted - got).square().mean(1) / variance
    torch.testing.assert_close(torch.tensor(found["latent_errors"]).double(), expected, rtol=1e-6, atol=0)
    assert found["latent_error"] == pytest.approx(
        float((wanted - got).square().mean(1).sum() / variance.sum()), rel=1e-9
    )
    middle = wanted.mean(1, keepdim=True)
    cosines = torch.nn.functional.cosine_similarity(wanted - middle, got - middle, dim=1)
    torch.testing.assert_close(torch.tensor(found["cosines"]).double(), cosines, rtol=1e-6, atol=0)
