"""What is trained: the autoencoder and its average, the discriminator, their losses and optimizers.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

import copy
from typing import Any

import torch
from torch import nn

from litevae.losses.perceptual import build_perceptual
from litevae.losses.total import AutoencoderLoss
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.discriminators import build_discriminator
from litevae.models.initialize import initialize
from litevae.models.litevae import LiteVAE
from litevae.runs.config import ConfigError
from litevae.runs.learner import Learner, average_into
from litevae.runs.processes import Processes
from litevae.seeds import derive_seed
from litevae.training.config import ModelConfig, RunConfig

Autoencoder = LiteVAE | StableDiffusionVAE


def build_autoencoder(config: ModelConfig) -> Autoencoder:
    """The model of a config's `model` section, initialized as its class does."""
    if config.kind == "litevae":
        return LiteVAE.from_preset(config.size, **config.overrides)
    overrides: dict[str, Any] = config.overrides
    encoder = None if config.encoder_channels is None else tuple(config.encoder_channels)
    return StableDiffusionVAE.from_architecture(encoder_channels=encoder, **overrides)


def check_discriminator(config: RunConfig) -> None:
    """Raise a ConfigError unless the discriminator takes the crop size: a run might fail after thousands of steps."""
    with torch.device("meta"):
        try:
            build_discriminator(config.discriminator)(torch.empty(2, 3, config.data.crop_size, config.data.crop_size))
        except ValueError as error:
            raise ConfigError(f"discriminator.kind={config.discriminator.kind} and data.crop_size: {error}") from None


def freeze(model: Autoencoder, part: str | None) -> None:
    """No gradients and no dropout for "encoder" or "decoder" and its 1x1 convolution; for None nothing changes."""
    parts = {"encoder": (model.encoder, model.quant_conv), "decoder": (model.decoder, model.post_quant_conv)}
    for module in parts[part] if part else ():
        if module is not None:
            module.requires_grad_(False)
            for dropout in module.modules():
                if isinstance(dropout, nn.Dropout):
                    dropout.p = 0.0


class Networks:
    """Everything with weights that a run has, on its device."""

    def __init__(self, config: RunConfig, processes: Processes) -> None:
        train = config.train
        torch.manual_seed(derive_seed(train.seed, "weights", 0))
        model = build_autoencoder(config.model)
        initialize(model, train.initialization)
        model.to(processes.device)  # type: ignore[arg-type]
        self.model = model.train()
        self.frozen = train.freeze
        self.scale: dict[str, Any] | None = None
        """With a frozen encoder: what the model that it comes from says of the scale of its latents, if it does."""
        freeze(self.model, self.frozen)
        if train.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        perceptual = None
        if config.loss.perceptual_weight:
            with processes.local_main_first():
                perceptual = build_perceptual(config.perceptual)
        self.loss = AutoencoderLoss(config.loss, perceptual).to(processes.device)
        self.ema_decay = train.ema_decay
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False) if train.ema_decay else None
        if train.compile:
            for module in (self.model.encoder, self.model.decoder, *([perceptual] if perceptual else [])):
                module.compile()
        self.generator = Learner(self.model, processes, train, train.learning_rate, train.betas)
        self.discriminator: Learner | None = None
        if config.has_discriminator:
            self.discriminator = self._build_discriminator(config, processes)

    def _build_discriminator(self, config: RunConfig, processes: Processes) -> Learner:
        train, own = config.train, config.discriminator
        check_discriminator(config)
        torch.manual_seed(derive_seed(train.seed, "discriminator", 0))
        network = build_discriminator(own).to(processes.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if train.compile and not own.r1_weight:  # R1 differentiates twice, which compiled code cannot
            network.compile()
        rate, betas = own.learning_rate or train.learning_rate, own.betas or train.betas
        return Learner(network.train(), processes, train, rate, betas)

    def average(self) -> None:
        """One step of the moving average of the weights, where there is one."""
        if self.ema is not None:
            average_into(self.ema, self.model, self.ema_decay)

    @property
    def kept(self) -> Autoencoder:
        """The autoencoder that a run leaves: the averaged one where there is one."""
        return self.model if self.ema is None else self.ema

    @property
    def learners(self) -> list[Learner]:
        return [self.generator] if self.discriminator is None else [self.generator, self.discriminator]
