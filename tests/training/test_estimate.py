"""Is the estimate what a run then needs?"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevae import DiagonalGaussian, LiteVAE, LiteVAEOutput
from litevae.cost import LiveTensors
from litevae.data.config import DataConfig
from litevae.losses.total import AutoencoderLoss, LossConfig
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.discriminators import build_discriminator
from litevae.models.discriminators.config import DiscriminatorConfig
from litevae.runs.processes import Processes
from litevae.training.config import RunConfig, TrainConfig
from litevae.training.estimate import estimate
from litevae.training.networks import Networks
from litevae.training.update import Update
from litevae_kernels import haar_dwt2d

SIDE, BATCH = 64, 2


class Discriminator(nn.Module):
    """Two convolutions, two maps of logits; a buffer, as spectral normalisation has them."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, channels, 4, 2, 1), nn.Conv2d(channels, 1, 3)
        self.register_buffer("state", torch.zeros(10))

    def forward(self, image: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
        features = F.leaky_relu(self.first(image), 0.2)
        return features, self.second(features)


class Perceptual(nn.Module):
    """The distance of one layer's features."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, channels, 3, padding=1).requires_grad_(False)

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        return (self.layer(reconstruction).relu() - self.layer(image).relu()).square().mean()


def litevae() -> LiteVAE:
    return LiteVAE(
        extraction_channels=8,
        extraction_multipliers=(1, 2),
        aggregation_channels=8,
        aggregation_multipliers=(1,),
        block_out_channels=(16, 16, 16, 16),
    )


def sd_vae() -> StableDiffusionVAE:
    return StableDiffusionVAE.from_architecture(block_out_channels=(16, 16, 16, 16))


def config_of(
    crop_size: int = SIDE, perceptual: bool = False, adversarial_weight: float = 0.1, **train: Any
) -> RunConfig:
    loss = LossConfig(perceptual_weight=float(perceptual), adversarial_weight=adversarial_weight)
    return RunConfig(data=DataConfig(crop_size=crop_size), loss=loss, train=TrainConfig(**train))


def pixels() -> Tensor:
    return torch.zeros(BATCH, 3, SIDE, SIDE, dtype=torch.uint8)


def real_step(config: RunConfig, model: nn.Module, discriminator: nn.Module, perceptual: nn.Module) -> Any:
    """A function that takes the gradients of an update on real tensors."""

    def learner(network: nn.Module) -> SimpleNamespace:
        return SimpleNamespace(network=network, distributed=network, backward=lambda loss: loss.backward())

    networks: Any = SimpleNamespace(
        model=model,
        ema=None,
        loss=AutoencoderLoss(config.loss, perceptual),
        generator=learner(model),
        discriminator=learner(discriminator),
    )
    update = Update(config, networks, Processes("cpu"))
    return lambda: update.backward(pixels(), 0, networks.discriminator, 0)


def allocated_at_most(function: Any) -> int:
    """Bytes that torch's CPU allocator gave out during `function`, at the fullest moment."""
    with torch.autograd.profiler.profile(profile_memory=True, use_kineto=True) as profile:
        function()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    running = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(running, default=0)


def counted_at_most(function: Any, *networks: nn.Module | None) -> int:
    """Bytes of real tensors that were alive at once during `function`, beside the parameters and buffers."""
    held = [tensor for network in networks if network for tensor in (*network.parameters(), *network.buffers())]
    with LiveTensors() as tensors:
        tensors.hold(held)
        function()
    return tensors.peak_bytes - sum(tensor.nbytes for tensor in held)


def largest_operands(*networks: nn.Module) -> Any:
    """Record the most bytes that a convolution's input, weight and output take in float32; returns the list of all."""
    sizes: list[int] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = cast(Tensor, layer.weight)
        sizes.append(4 * (inputs[0].numel() + weight.numel() + output.numel()))

    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(note)
    return sizes


@pytest.mark.parametrize(
    ("make", "dtype", "checkpointing", "discriminator"),
    [
        (litevae, None, False, Discriminator()),
        (litevae, torch.bfloat16, True, Discriminator()),
        (litevae, None, False, Discriminator(1024)),  # the discriminator's step needs the most
        (sd_vae, None, True, build_discriminator(DiscriminatorConfig(channels=8, resolution=64))),
        (sd_vae, torch.bfloat16, False, Discriminator()),
    ],
)
def test_memory_is_what_the_allocator_gives_out(
    make: Any, dtype: torch.dtype | None, checkpointing: bool, discriminator: nn.Module
) -> None:
    """All tensors, and no more than that and what an operation takes inside itself.

    oneDNN may convert the operands of a convolution to another layout or dtype, which depends on the instructions that
    the CPU has (without bfloat16 units to float32): at most a copy of each, of the forward pass or of the backward
    pass, which has the three operands and their gradients. So the allocator may exceed the count by twice the operands
    of the largest convolution in float32, and the count of the same step with real tensors is met on every CPU.
    """
    model, perceptual = make().train(), Perceptual()
    if checkpointing:
        model.enable_gradient_checkpointing()
    config = config_of(perceptual=True, mixed_precision="float32" if dtype is None else "bf16")
    expected = estimate(config, model, discriminator, perceptual, BATCH)
    made = expected.activation_bytes + expected.gradient_bytes
    step = real_step(config, model, discriminator, perceptual)
    assert made == pytest.approx(counted_at_most(step, model, discriminator, perceptual), rel=0.002)
    for network in (model, discriminator):
        network.zero_grad()
    operands = largest_operands(model, discriminator, perceptual)
    allocated = allocated_at_most(step)
    assert allocated - 2 * max(operands) < made < 1.001 * allocated


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss.ldl_weight": 0.1, "train.ema_decay": 0.5},
        {"discriminator.r1_weight": 1.0},
        {"loss.adversarial_weighting": "adaptive"},
        {"train.gradient_ratio_every": 1},
        {"loss.gaussian_weight": 0.0, "loss.wavelet_weight": 0.0, "train.mixed_precision": "bf16"},
    ],
)
def test_memory_is_that_of_an_update(changes: dict[str, Any]) -> None:
    """Of `Update` with the same config, counted on real tensors: with LDL, R1 and the adaptive weight too."""
    from litevae.runs.recipes import load_config

    options = {
        "model.block_out_channels": [16, 16, 16, 16],
        "data.crop_size": SIDE,
        "loss.adversarial_weight": 0.1,
        "discriminator.channels": 8,
        "discriminator.resolution": SIDE,
        "train.batch_size": BATCH,
        "train.device": "cpu",
        **changes,
    }
    config = load_config(RunConfig, "quickstart", [f"{key}={value}" for key, value in options.items()])
    processes = Processes("cpu")
    networks = Networks(config, processes)
    assert networks.discriminator is not None
    discriminator = networks.discriminator.network
    expected = estimate(config, networks.model, discriminator, None, BATCH)
    update = Update(config, networks, processes)
    counted = counted_at_most(
        lambda: update.backward(pixels(), 0, networks.discriminator, 0), networks.model, networks.ema, discriminator
    )
    assert expected.activation_bytes + expected.gradient_bytes == pytest.approx(counted, rel=0.002)


class Tiny(nn.Module):
    """A quarter of LiteVAE's interface, whose costs a pencil can count: two 8x8 convolutions."""

    quant_conv, post_quant_conv, last_layer = None, None, None

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 8, stride=8)
        self.decoder = nn.ConvTranspose2d(2, 3, 8, stride=8, bias=False)

    def encode(self, image: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.encoder(image))

    def forward(self, image: Tensor, sample_posterior: bool = False, generator: Any = None) -> LiteVAEOutput:
        posterior = self.encode(image)
        latent = posterior.sample(generator) if sample_posterior else posterior.mode()
        sample = self.decoder(latent)
        return LiteVAEOutput(sample, haar_dwt2d(sample, scaling="mean")[0], posterior, latent)


def test_counts_by_hand() -> None:
    model: Any = Tiny()
    config = config_of(16, perceptual=True, ema_decay=0.5)
    found = estimate(config, model, Discriminator(), Perceptual(), 2, distributes=True)
    encoder, decoder, discriminator = 4 * 3 * 64 + 4, 2 * 3 * 64, 16 * 3 * 16 + 16 + 16 * 9 + 1
    assert (found.encoder_parameters, found.decoder_parameters) == (encoder, decoder)
    assert found.discriminator_parameters == discriminator
    assert found.encoder_macs == 2 * 2 * (4 * 3 * 64)
    assert found.decoder_macs == 2 * 2 * (2 * 3 * 64)
    assert found.discriminator_macs == 8 * 8 * (16 * 3 * 16) + 6 * 6 * (16 * 9)
    assert found.perceptual_macs == 2 * 16 * 16 * (24 * 3 * 9)
    trained = 4 * (encoder + decoder + discriminator)
    assert found.parameter_bytes == trained + 4 * 10 + 4 * (24 * 3 * 9 + 24)  # the state, the perceptual layer
    assert found.optimizer_bytes == 2 * trained
    assert found.average_bytes == 4 * (encoder + decoder)
    held = found.parameter_bytes + found.optimizer_bytes + found.average_bytes
    assert found.total_bytes == held + found.gradient_bytes + found.activation_bytes


def test_the_fullest_moment_by_hand() -> None:
    """In the perceptual loss's backward: a first slice has no gradient by then, a second has all of them.

    Alive are six tensors as large as the features: the reconstruction's after ReLU and their difference d from the
    image's, which autograd remembered; and, of the derivative of d^2, its gradient g, d^1, 2 d^1 and g * 2 d^1.
    """
    model, perceptual = cast(Any, Tiny()), Perceptual(channels=240)
    trained = sum(parameter.nbytes for parameter in model.parameters())
    config = config_of(16, perceptual=True, adversarial_weight=0.0)
    first = estimate(config, model, None, perceptual, 2)
    second = estimate(config, model, None, perceptual, 2, accumulates=True)
    distributed = estimate(config, model, None, perceptual, 2, distributes=True)
    assert [found.gradient_bytes for found in (first, second, distributed)] == [0, trained, trained]
    assert first.activation_bytes == second.activation_bytes == distributed.activation_bytes
    features = 2 * 240 * 16 * 16 * 4
    assert 6 * features < first.activation_bytes < 6.2 * features


def test_litevae_b_with_stable_diffusion_s_decoder_at_the_paper_s_size() -> None:
    """Of meta tensors. FACTS: 37.84 and about 311 GMAC; the paper prints 135.59 for SD's encoder."""
    with torch.device("meta"):
        model, baseline = LiteVAE.from_preset("B"), StableDiffusionVAE.from_architecture()
    single, half = (
        estimate(config_of(256, adversarial_weight=0.0, mixed_precision=name), model, None, None, 16)
        for name in ("float32", "bf16")
    )
    sd_vae = estimate(config_of(256, adversarial_weight=0.0), baseline, None, None, 16)
    assert (single.encoder_parameters, single.decoder_parameters) == (6_753_252, 49_490_179)
    assert (sd_vae.encoder_parameters, sd_vae.decoder_parameters) == (34_163_664, 49_490_179 + 4 * 4 + 4)
    assert round(single.encoder_macs / 1e9, 2) == 37.84
    assert round(single.decoder_macs / 1e9) == round(sd_vae.decoder_macs / 1e9) == 311
    assert sd_vae.encoder_macs == pytest.approx(135.59e9, rel=0.01)
    assert single.parameter_bytes == 4 * (6_753_252 + 49_490_179)
    assert 0.49 < half.activation_bytes / single.activation_bytes < 0.52
    assert sd_vae.activation_bytes > 1.5 * single.activation_bytes


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"crop_size": 20}, ValueError, "multiple of 8"),
        ({"batch_size": 8.0}, TypeError, "batch_size must be an int"),
        ({"device_type": "tpu"}, ValueError, "device_type must be one of 'cpu', 'cuda', got 'tpu'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"batch_size": 1, "crop_size": 16, **arguments}
    with pytest.raises(error, match=message):
        estimate(config_of(given.pop("crop_size")), litevae(), None, None, **given)


def test_nothing_is_allocated_and_the_networks_stay_as_they_are() -> None:
    model, discriminator = litevae().eval(), Discriminator()
    before = [tensor.clone() for network in (model, discriminator) for tensor in network.state_dict().values()]
    assert allocated_at_most(lambda: estimate(config_of(256), model, discriminator, None, 16)) < 2**16
    after = [tensor for network in (model, discriminator) for tensor in network.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in (*model.parameters(), *discriminator.parameters()))
    assert not any(p._post_accumulate_grad_hooks for p in (*model.parameters(), *discriminator.parameters()))
