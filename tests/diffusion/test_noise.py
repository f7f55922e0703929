"""Are noise and targets those of the closed forms, and do the samplers bring Gaussian data back?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae.diffusion.config import NoiseConfig, SamplingConfig
from litevae.diffusion.noise import STEPS, Noising, noising
from litevae.diffusion.sampling import with_sampler

MEAN, STD = 2.0, 0.5


def test_epsilon_is_the_schedule_of_diffusers_and_ldm() -> None:
    """sqrt(beta) grows linearly from 0.0015 to 0.0195: LDM's "linear"; noise is added as DDPMScheduler adds it."""
    from diffusers import DDPMScheduler

    oracle = DDPMScheduler(STEPS, beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195)
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, STEPS, dtype=torch.float64) ** 2
    torch.testing.assert_close(oracle.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-5, atol=0)
    torch.manual_seed(0)
    latents, noise, times = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0.0, 500.0, 999.0])
    noisy, target = noising(NoiseConfig()).add(latents, noise, times)
    torch.testing.assert_close(noisy, oracle.add_noise(latents, noise, times.long()))
    assert target is noise


def test_flow_is_the_straight_line() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    latents, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    flow, oracle = noising(NoiseConfig(objective="flow")), FlowMatchEulerDiscreteScheduler()
    times = oracle.timesteps[[0, 300, 900]]
    noisy, target = flow.add(latents, noise, times)
    torch.testing.assert_close(noisy, oracle.scale_noise(latents, times, noise), rtol=1e-5, atol=1e-6)
    later, _ = flow.add(latents, noise, times + 10)  # its derivative, times the time between
    torch.testing.assert_close((later - noisy) / (10 / STEPS), target, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "mean", "std"),
    [
        (NoiseConfig(), 499.5, STEPS / math.sqrt(12)),
        (NoiseConfig(objective="flow"), 500.0, STEPS / math.sqrt(12)),
        (NoiseConfig(objective="flow", times="logit_normal"), 500.0, 208.0),  # of the logit-normal(0, 1): 0.208
    ],
)
def test_times_are_drawn_as_they_are_called(config: NoiseConfig, mean: float, std: float) -> None:
    """Within five standard errors of 20,000 draws; and each is a function of (seed, number)."""
    times = noising(config).draw_times(0, range(20_000))
    assert times.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(20_000))
    assert times.std().item() == pytest.approx(std, rel=0.02)
    assert torch.equal(noising(config).draw_times(0, range(100, 110)), times[100:110])
    assert not torch.equal(noising(config).draw_times(1, range(100, 110)), times[100:110])


def optimal(objective: str, alphas: torch.Tensor) -> Any:
    """(x, t) -> E[target | x] for data that are N(MEAN, STD^2), element by element."""

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if objective == "flow":
            share = t.item() / STEPS
            a, s = 1 - share, share
        else:
            a, s = alphas[int(t)].sqrt().item(), (1 - alphas[int(t)]).sqrt().item()
        residual = (x - a * MEAN) / (a**2 * STD**2 + s**2)
        noise, latent = s * residual, MEAN + a * STD**2 * residual
        return noise - latent if objective == "flow" else noise

    return predict


@pytest.mark.parametrize(
    ("objective", "sampler", "eta", "steps", "tolerance"),
    [
        ("flow", "euler", 0.0, 100, 0.02),
        ("flow", "dpm", 0.0, 50, 0.02),
        ("epsilon", "ddim", 0.0, 200, 0.03),
        ("epsilon", "ddim", 1.0, 200, 0.03),
        ("epsilon", "dpm", 0.0, 100, 0.03),
        ("epsilon", "ddim", 0.0, 250, 0.03),
        ("epsilon", "ddim", 0.0, 500, 0.03),
        ("epsilon", "dpm", 0.0, 500, 0.03),
        ("flow", "dpm", 0.0, 500, 0.02),
    ],
)
def test_samplers_with_the_optimal_network_give_gaussian_data_back(
    objective: str, sampler: str, eta: float, steps: int, tolerance: float
) -> None:
    """Up to the discretization: 40,000 values, whose mean and standard deviation are known to 0.003."""
    way = noising(NoiseConfig(objective=objective))
    scheduler = way.scheduler(SamplingConfig(steps=steps, sampler=sampler, eta=eta))
    check(way, scheduler, eta, steps, tolerance)


@pytest.mark.parametrize(("objective", "saved", "sampler"), [
    ("epsilon", "dpm", "ddim"), ("epsilon", "ddim", "dpm"), ("flow", "euler", "dpm"), ("flow", "dpm", "euler"),
])  # fmt: skip
def test_another_sampler_than_the_saved_one_samples_the_same_data(
    objective: str, saved: str, sampler: str, tmp_path: Path
) -> None:
    way = noising(NoiseConfig(objective=objective))
    scheduler = way.scheduler(SamplingConfig(sampler=saved))
    scheduler.save_pretrained(tmp_path)
    check(way, with_sampler(type(scheduler).from_pretrained(tmp_path), sampler), 0.0, 100, 0.04)


def check(way: Noising, scheduler: Any, eta: float, steps: int, tolerance: float) -> None:
    scheduler.set_timesteps(steps)
    objective = way.config.objective
    predict = optimal(objective, getattr(way, "_alphas", torch.empty(0)))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 200, 200, generator=generator)
    options: dict[str, Any] = {"generator": generator, **({"eta": eta} if eta else {})}
    for t in scheduler.timesteps:
        x = scheduler.step(predict(x, t), t, x, **options).prev_sample
    assert x.mean().item() == pytest.approx(MEAN, abs=tolerance)
    assert x.std().item() == pytest.approx(STD, abs=tolerance)


def test_more_steps_than_times_lie_between_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sampling.steps must be at most 500, got 1000"):
        SamplingConfig(steps=1000)
    with pytest.raises(ValueError, match=r"sampling.steps must divide 1,000 for ddim, got 300; try 250"):
        SamplingConfig(steps=300).sampler_for("epsilon")
