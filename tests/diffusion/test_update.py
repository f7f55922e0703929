"""Does training reach the optimum that is known in closed form, and is a step what accumulation and processes say?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from litevae.data.config import DataConfig
from litevae.diffusion.config import (
    DIT_CLASSES,
    AutoencoderConfig,
    DiffusionConfig,
    DiffusionTrainConfig,
    NetworkConfig,
    NoiseConfig,
    SamplingConfig,
)
from litevae.diffusion.latents import NO_CLASS, LatentBatch, Latents
from litevae.diffusion.networks import DiffusionNetworks
from litevae.diffusion.noise import STEPS, noising
from litevae.diffusion.sampling import draw
from litevae.diffusion.update import DiffusionUpdate
from litevae.runs.processes import Processes

MEAN, STD = 0.5, 0.25


def config(objective: str = "flow", **train: Any) -> DiffusionConfig:
    return DiffusionConfig(
        autoencoder=AutoencoderConfig(path="unread"),
        network=NetworkConfig(unet_channels=32, unet_multipliers=[1], unet_blocks=1),
        noise=NoiseConfig(objective=objective),
        data=DataConfig(crop_size=32, evaluation_size=32),
        train=DiffusionTrainConfig(**{"batch_size": 4, "learning_rate": 1e-3, "ema_decay": 0.0, **train}),
    )


class Unscaled(Latents):
    """Latents that come as they are."""

    def __init__(self) -> None:
        pass

    def encode(self, content: torch.Tensor, numbers: Any) -> torch.Tensor:
        return content


class PerElement(nn.Module):
    """The least that can learn a Gaussian: at every time an affine map of the noisy value."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(8, 2))

    def forward(self, noisy: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        share = (times / STEPS * 7).clamp(0, 7)
        low = share.floor().long().clamp(max=6)
        weight = (share - low)[:, None]
        scale, shift = (self.table[low] * (1 - weight) + self.table[low + 1] * weight).unbind(1)
        return scale.view(-1, 1, 1, 1) * noisy + shift.view(-1, 1, 1, 1)


def test_a_trained_model_reaches_the_optimal_one_and_samples_the_data() -> None:
    """Latents N(0.5, 0.25^2): E[noise - latent | noisy] is affine in the noisy value, at each time."""
    processes, told = Processes("cpu"), config(batch_size=64, learning_rate=5e-2)
    networks = DiffusionNetworks(told, 1, 8, processes)
    network = PerElement()
    networks.learner.network = networks.learner.distributed = networks.model = network  # type: ignore[assignment]
    networks.learner.optimizer = torch.optim.Adam(network.parameters(), lr=5e-2, fused=True)
    update = DiffusionUpdate(told, Unscaled(), noising(told.noise), networks, processes)
    generator = torch.Generator().manual_seed(0)
    for step in range(400):
        latents = MEAN + STD * torch.randn(64, 1, 8, 8, generator=generator)
        update(LatentBatch(latents, torch.full((64,), NO_CLASS)), step)
        if step == 250:
            networks.learner.rate = 5e-3
    for share in (0.2, 0.5, 0.8):
        a, s = 1 - share, share
        x = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)
        residual = (x - a * MEAN) / (a**2 * STD**2 + s**2)
        expected = s * residual - (MEAN + a * STD**2 * residual)
        found = network(x, torch.tensor([STEPS * share]), torch.tensor([0]))
        torch.testing.assert_close(found, expected, rtol=0.15, atol=0.15)
    noise = torch.randn(64, 1, 8, 8, generator=generator)
    samples = draw(
        network,
        noising(told.noise).scheduler(SamplingConfig()),
        SamplingConfig(steps=50),
        noise,
        torch.zeros(64, dtype=torch.int64),
    )  # type: ignore[arg-type]
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.05)
    assert samples.std().item() == pytest.approx(STD, abs=0.08)


def gradients(told: DiffusionConfig, batch: LatentBatch) -> torch.Tensor:
    """All gradients of a step, in one vector."""
    processes = Processes("cpu")
    networks = DiffusionNetworks(told, 4, 4, processes)
    found: list[torch.Tensor] = []
    step = networks.learner.step

    def watched(schedule: float) -> Any:
        found.append(torch.cat([p.grad.flatten() for p in networks.model.parameters() if p.grad is not None]))
        return step(schedule)

    networks.learner.step = watched  # type: ignore[method-assign]
    DiffusionUpdate(told, Unscaled(), noising(told.noise), networks, processes)(batch, 3)
    return found[0]


def test_accumulation_gives_the_gradient_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    batch = LatentBatch(torch.randn(4, 4, 4, 4), torch.full((4,), NO_CLASS))
    whole, parts = gradients(config(), batch), gradients(config(accumulation=2), batch)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_a_step_whose_loss_is_not_finite_changes_nothing() -> None:
    processes, told = Processes("cpu"), config()
    networks = DiffusionNetworks(told, 4, 4, processes)
    before = {name: value.clone() for name, value in networks.model.state_dict().items()}
    update = DiffusionUpdate(told, Unscaled(), noising(told.noise), networks, processes)
    content = torch.randn(4, 4, 4, 4)
    content[1, 0, 0, 0] = math.nan
    terms = update(LatentBatch(content, torch.full((4,), NO_CLASS)), 0)
    assert terms["network_skipped"].item() == 1.0
    assert all(torch.equal(value, before[name]) for name, value in networks.model.state_dict().items())


def test_classes_are_left_out_for_their_share_of_samples() -> None:
    told = config()
    told.network = NetworkConfig(kind="dit", classes=True, dit_width=32, dit_heads=2, dit_depth=1, class_dropout=0.25)
    processes = Processes("cpu")
    update = DiffusionUpdate(told, Unscaled(), noising(told.noise), DiffusionNetworks(told, 4, 4, processes), processes)
    labels = torch.arange(4000) % 7
    known = update._known(labels, range(4000))
    left_out = known == DIT_CLASSES
    assert left_out.float().mean().item() == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 4000))
    assert torch.equal(known[~left_out], labels[~left_out])
    assert (update._known(torch.full((5,), NO_CLASS), range(5)) == DIT_CLASSES).all()


def test_blocks_of_the_transformer_leave_no_class_out_by_themselves() -> None:
    """diffusers' DiT has a dropout of classes in each block, which draws anew in every one."""
    told = config()
    told.network = NetworkConfig(kind="dit", classes=True, dit_width=32, dit_heads=2, dit_depth=2)
    networks = DiffusionNetworks(told, 4, 4, Processes("cpu"))
    for parameter in networks.model.parameters():  # its last layers start at 0
        nn.init.normal_(parameter, std=0.1)
    x, times, labels = torch.randn(8, 4, 4, 4), torch.full((8,), 500.0), torch.arange(8)
    first, second = networks.model(x, times, labels), networks.model(x, times, labels)
    assert networks.model.training
    assert torch.equal(first, second)
    assert not torch.allclose(first, networks.model(x, times, torch.full((8,), DIT_CLASSES)))
