"""The ways of training that are compared, and the check that they train the same.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness.checks import FLOAT32_NETWORK, check_close, check_rounding
from benchmarks.harness.measure import DEVICE
from benchmarks.rivals.plain_loop import PlainLoop
from litevae.runs.processes import Processes
from litevae.training.config import RunConfig
from litevae.training.networks import Networks
from litevae.training.update import Update
from litevae_kernels.precision import tf32

ON_GPU = DEVICE.type == "cuda"
BATCHES = (8,) if ON_GPU else (2, 1)  # the largest that a run has time for; on a GPU the paper's, 16 on two
RECIPES = {64: "imagenet128", 128: "imagenet128", 256: "imagenet256-full"}
OVERRIDES = ["perceptual.trunk=random", "loss.adversarial_start=0"]
# tf32: float32 tensors, convolutions and matrix products with 10 bits of mantissa, which only a GPU has.
FLOAT32, TF32, BFLOAT16 = "float32", "tf32", "bfloat16 autocast"
# In float32 a reconstruction differs by e = FLOAT32_NETWORK times its RMS of about 1/2. Errors spread over [-1, 1]; a
# share of e / 2 of them changes its sign, and so L1's gradient there by twice its size: 2 sqrt(e / 2) of the norm.
GRADIENTS_TOLERANCE = FLOAT32_NETWORK**0.5
CHECKED_SIDE = 64  # beyond it the check takes a CPU longer than the timing
TERMS = ("l1", "kl", "wavelet", "gaussian", "perceptual", "adversarial", "total", "discriminator")
LOSSES_ROUNDOFFS = 12  # a loss is one number, in which the plain loop's roundings may cancel

SD_VAE, SMALL, OURS = "SD-VAE", "LiteVAE-S", "LiteVAE-B"
PLAIN, TWO_FORWARDS = "LiteVAE-B, plain loop", "LiteVAE-B, plain loop, two forwards"
CHECKPOINTED, COMPILED = "LiteVAE-B, gradient checkpointing", "LiteVAE-B, torch.compile"
ROWS = {
    SD_VAE: ["model=sd-vae"],
    PLAIN: [],
    TWO_FORWARDS: [],
    SMALL: ["model.size=S"],
    OURS: [],
    CHECKPOINTED: ["train.gradient_checkpointing=true"],
    COMPILED: ["train.compile=true"],
}


def cases(on_gpu: bool) -> dict[tuple[int, str], list[str]]:
    """The rows by (resolution, precision). CPU: rows and sizes that fit into a run."""
    if not on_gpu:
        in_float32, in_bfloat16 = [SD_VAE, PLAIN, TWO_FORWARDS, OURS], [SD_VAE, PLAIN, SMALL, OURS]
        return {(64, FLOAT32): in_float32, (64, BFLOAT16): in_bfloat16, (128, BFLOAT16): [OURS]}
    rows = [SD_VAE, PLAIN, TWO_FORWARDS, SMALL, OURS]
    by_precision = {FLOAT32: rows, TF32: [SD_VAE, PLAIN, SMALL, OURS], BFLOAT16: [*rows, CHECKPOINTED, COMPILED]}
    return {(side, precision): names for precision, names in by_precision.items() for side in (128, 256)}


def config_of(name: str, resolution: int, precision: str, batch: int = BATCHES[0]) -> RunConfig:
    """The paper's recipe, with the discriminator from the first step."""
    from litevae.runs.recipes import load_config  # needs omegaconf

    recipe = RECIPES[resolution]
    sides = ["data.crop_size=64", "data.evaluation_size=64", "discriminator.resolution=64"] if resolution == 64 else []
    settings = {
        "train.batch_size": batch,
        "train.device": DEVICE.type,
        "train.mixed_precision": "bf16" if precision == BFLOAT16 else "float32",
    }
    overrides = [*sides, *ROWS[name], *OVERRIDES, *(f"{key}={value}" for key, value in settings.items())]
    return load_config(RunConfig, recipe, overrides)


@functools.cache
def processes() -> Processes:
    return Processes(DEVICE.type)


@functools.lru_cache(maxsize=1)
def copied_networks(resolution: int) -> Networks:
    """What plain loops copy; nobody trains them."""
    return Networks(config_of(OURS, resolution, FLOAT32), processes())


class Training:
    """A row and one batch of images: calling it makes an update."""

    def __init__(self, name: str, resolution: int, precision: str, batch: int = BATCHES[0]) -> None:
        self.name, self.resolution, self.precision = name, resolution, precision
        config = config_of(name, resolution, precision, batch)
        self.is_plain = name in (PLAIN, TWO_FORWARDS)
        self.source = copied_networks(resolution) if self.is_plain else Networks(config, processes())
        """What a plain loop with the same weights is made from."""
        self.update: Any
        self.networks: list[Any]
        """The autoencoder and the discriminator."""
        if self.is_plain:
            self.update = PlainLoop(config, self.source, second_forward=name == TWO_FORWARDS)
            self.networks, self.optimizers = self.update.networks, self.update.optimizers
            self.perceptual: Any = self.update.perceptual
        else:
            self.update = functools.partial(Update(config, self.source, processes()), step=0)
            self.networks = [learner.network for learner in self.source.learners]
            self.optimizers = [learner.optimizer for learner in self.source.learners]
            self.perceptual = self.source.loss.perceptual
        generator = torch.Generator().manual_seed(0)
        shape = (batch, 3, config.data.crop_size, config.data.crop_size)
        self.pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(DEVICE)

    def __call__(self, **options: Tensor) -> dict[str, Tensor]:
        """The losses by name; `options`: the noise of a plain loop."""
        with tf32(self.precision == TF32):
            return self.update(self.pixels, **options)

    def make_moments(self) -> None:
        """Adam's moments, which its first step makes, by a step with gradients of 0: no weight changes."""
        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            optimizer.zero_grad()

    def state_bytes(self) -> int:
        """What lasts from one update to the next: weights, those of LPIPS too, and Adam's moments."""
        modules = [*self.networks, self.perceptual]
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        states = [state for optimizer in self.optimizers for state in optimizer.state.values()]
        tensors += [value for state in states for value in state.values() if isinstance(value, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def check(training: Training) -> None:
    """Refuse to time another training: LiteVAE's losses and gradients are the plain loop's.

    In float32 they are compared with it; below it, with its float32 beside what the plain loop itself loses in the
    same precision. The autoencoder's gradient is result 1, the discriminator's result 2. No weight changes. Of images
    larger than `CHECKED_SIDE` the corner is seen.
    """
    if training.name in (SD_VAE, PLAIN):
        return
    with corner(training):
        compare(training)


def compare(training: Training) -> None:
    name, precision = training.name, training.precision
    noise, own_losses, own_gradients = first_update(training)
    exact_losses, exact_gradients = plain_update(training, FLOAT32, noise)
    losses, gradients = [torch.stack([own_losses[term] for term in TERMS])], [*map(joined, own_gradients)]
    if precision == FLOAT32:
        check_close(f"{name}, losses", losses, exact_losses, FLOAT32_NETWORK)
        check_close(f"{name}, gradients", gradients, exact_gradients, GRADIENTS_TOLERANCE)
        return
    rounding = precision.split()[0]
    plain_losses, plain_gradients = plain_update(training, precision, noise)
    check_rounding(f"{name}, losses", rounding, losses, plain_losses, exact_losses, LOSSES_ROUNDOFFS)
    check_rounding(f"{name}, gradients", rounding, gradients, plain_gradients, exact_gradients)


@contextmanager
def corner(training: Training) -> Iterator[None]:
    """For a while the images are no larger than `CHECKED_SIDE`; on a GPU, which has the time, they are whole."""
    if ON_GPU:
        yield
        return
    whole, training.pixels = training.pixels, training.pixels[..., :CHECKED_SIDE, :CHECKED_SIDE]
    try:
        yield
    finally:
        training.pixels = whole


def plain_update(training: Training, precision: str, noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The losses and both networks' gradients of a plain loop with the same weights, images and noise."""
    config = config_of(training.name, training.resolution, precision, len(training.pixels))
    loop = PlainLoop(config, training.source)
    with without_updates(loop.networks, loop.optimizers) as gradients, tf32(precision == TF32):
        losses = loop(training.pixels, noise=noise)
    return [torch.stack([losses[term] for term in TERMS])], [*map(joined, gradients)]


def first_update(training: Training) -> tuple[Tensor, dict[str, Tensor], list[dict[str, Tensor]]]:
    """Noise of the latent, losses, and both networks' gradients, which do not become an update."""
    outputs: list[Any] = []
    handle = training.networks[0].register_forward_hook(lambda *called: outputs.append(called[-1]))
    with without_updates(training.networks, training.optimizers) as gradients:
        if training.is_plain:
            side = training.pixels.shape[-1] // 8
            noise = torch.randn(len(training.pixels), training.update.latent_channels, side, side, device=DEVICE)
            losses = training(noise=noise)
        else:
            losses = training()
            posterior = outputs[0].latent_dist
            noise = ((outputs[0].latent - posterior.mean) / posterior.std).detach()
    handle.remove()
    return noise, losses, gradients


@contextmanager
def without_updates(networks: list[nn.Module], optimizers: list[Any]) -> Iterator[list[dict[str, Tensor]]]:
    """For a while optimizers find no gradients, and the list has each network's instead, by parameter."""
    taken: list[dict[str, Tensor]] = []

    def take(network: nn.Module) -> None:
        gradients = {}
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            gradients[name], parameter.grad = parameter.grad, None
        taken.append(gradients)

    hooks = [
        optimizer.register_step_pre_hook(lambda *_, network=network: take(network))
        for network, optimizer in zip(networks, optimizers, strict=True)
    ]
    # Every forward pass improves the discriminator's estimates of singular values, and not all have the same number.
    estimates: list[Any] = [module for module in networks[1].modules() if hasattr(module, "n_power_iterations")]
    iterations = [module.n_power_iterations for module in estimates]
    for module in estimates:
        module.n_power_iterations = 0
    try:
        yield taken
    finally:
        for module, number in zip(estimates, iterations, strict=True):
            module.n_power_iterations = number
        for hook in hooks:
            hook.remove()


def joined(gradients: dict[str, Tensor]) -> Tensor:
    """All as one vector, in an order that does not depend on which module was made first."""
    by_name = {name.replace("encoder.encoder.", "encoder."): gradient for name, gradient in gradients.items()}
    return torch.cat([by_name[name].flatten() for name in sorted(by_name)])
