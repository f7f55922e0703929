"""What is trained? The autoencoder and its average, the discriminator, their losses and optimizers.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from litevae.losses.perceptual import build_perceptual
from litevae.losses.total import AutoencoderLoss
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.discriminators import build_discriminator
from litevae.models.initialize import initialize
from litevae.models.litevae import LiteVAE
from litevae.runs.processes import Processes
from litevae.seeds import derive_seed
from litevae.training.config import ConfigError, ModelConfig, RunConfig, TrainConfig

Autoencoder = LiteVAE | StableDiffusionVAE


def build_autoencoder(config: ModelConfig) -> Autoencoder:
    """The model of a config's `model` section, as its class makes it."""
    if config.kind == "litevae":
        return LiteVAE.from_preset(config.size, **config.overrides)
    overrides: dict[str, Any] = config.overrides
    encoder = None if config.encoder_channels is None else tuple(config.encoder_channels)
    return StableDiffusionVAE.from_architecture(encoder_channels=encoder, **overrides)


def check_discriminator(config: RunConfig) -> None:
    """Show the discriminator crops of the run's size, as shapes: it might meet them after thousands of steps first.

    Raises:
        ConfigError: it cannot judge them; says which sizes it can.
    """
    with torch.device("meta"):
        try:
            build_discriminator(config.discriminator)(torch.empty(2, 3, config.data.crop_size, config.data.crop_size))
        except ValueError as error:
            raise ConfigError(f"discriminator.kind={config.discriminator.kind} and data.crop_size: {error}") from None


class Learner:
    """A network, distributed over the processes, with Adam and the scale of its loss.

    A step whose gradients hold a NaN or an infinity changes nothing, and no one waits to find out: the fused Adam
    reads the verdict on the device. After DistributedDataParallel every process has the same gradients, and so the
    same verdict.
    """

    def __init__(
        self, network: nn.Module, processes: Processes, config: TrainConfig, rate: float, betas: list[float]
    ) -> None:
        self.distributed = processes.distribute(network)
        self.network = network
        self.rate, self.betas, self.max_norm = rate, (betas[0], betas[1]), config.max_gradient_norm
        self.optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=self.betas, fused=True)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=config.mixed_precision == "fp16")

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients. A loss that is not finite makes every gradient NaN, in every process."""
        verdict = torch.where(torch.isfinite(loss.detach()), 1.0, float("nan"))
        self.scaler.scale(loss * verdict).backward()

    def step(self, schedule: float) -> tuple[Tensor, Tensor]:
        """Update the network, unless its gradients are not finite; returns their norm and 1.0 if it was skipped."""
        optimizer: Any = self.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.rate * schedule
        self.scaler.unscale_(optimizer)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        skipped = (~torch.isfinite(norm)).to(torch.float32)
        if self.max_norm is not None:
            nn.utils.clip_grads_with_norm_(self.network.parameters(), self.max_norm, norm)
        optimizer.grad_scale, optimizer.found_inf = None, skipped  # of fused Adam; GradScaler would set the same
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm, skipped

    def restore(self, optimizer: dict[str, Any], scaler: dict[str, Any]) -> None:
        """Take over Adam's moments and the scale of the loss; learning rate and betas stay the config's."""
        self.optimizer.load_state_dict(optimizer)
        for group in self.optimizer.param_groups:
            group["betas"] = self.betas
        for parameter, state in self.optimizer.state.items():
            for moment in ("exp_avg", "exp_avg_sq"):  # the fused Adam of a CPU takes for granted that layouts agree
                state[moment] = torch.empty_like(parameter).copy_(state[moment])
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler)


class Networks:
    """Everything with weights that a run has, on its device."""

    def __init__(self, config: RunConfig, processes: Processes) -> None:
        train = config.train
        torch.manual_seed(derive_seed(train.seed, "weights", 0))
        model = build_autoencoder(config.model)
        initialize(model, train.initialization)
        model.to(processes.device)  # type: ignore[arg-type]
        self.model = model.train()
        if train.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        perceptual = None
        if config.loss.perceptual_weight:
            with processes.one_at_first():
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

    @torch.no_grad()
    def average(self) -> None:
        """One step of the moving average: ema = decay * ema + (1 - decay) * model."""
        if self.ema is not None:
            average = get_ema_multi_avg_fn(self.ema_decay)
            average(list(self.ema.parameters()), list(self.model.parameters()), 0)

    @property
    def kept(self) -> Autoencoder:
        """The autoencoder that a run leaves: the averaged one where there is one."""
        return self.model if self.ema is None else self.ema

    @property
    def learners(self) -> list[Learner]:
        return [self.generator] if self.discriminator is None else [self.generator, self.discriminator]
