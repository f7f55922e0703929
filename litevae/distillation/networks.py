"""What a distillation trains: the student's encoder, from a step on the decoder too, their averages and optimizers.

image -> [student's encoder] -> latent -> [decoder]
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from litevae.distillation.config import DistillationConfig, StudentConfig
from litevae.distillation.teacher import Teacher
from litevae.models.encoder import Encoder
from litevae.models.hybrid import HybridAutoencoder
from litevae.models.initialize import start_encoder
from litevae.runs.learner import Learner, average_into
from litevae.runs.processes import Processes
from litevae.seeds import derive_seed


def build_student(config: StudentConfig, teacher: Teacher) -> HybridAutoencoder:
    """LiteVAE's encoder, new, before a copy of the teacher's decoder."""
    told = {"name": teacher.place, "subfolder": teacher.subfolder}
    return HybridAutoencoder.from_teacher(teacher.model, config.size, **told, **config.overrides)


class Decoding(nn.Module):
    """A hybrid's way from the latent to the image, as one module: [B, C, h, w] -> [B, 3, 8h, 8w]."""

    def __init__(self, hybrid: Any) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv = hybrid.decoder, hybrid.post_quant_conv

    def forward(self, latent: Tensor) -> Tensor:
        latent = latent if self.post_quant_conv is None else self.post_quant_conv(latent)
        return cast(Tensor, self.decoder(latent))


class DistillationNetworks:
    """Everything with weights that learns, on its device.

    `begin` must be called before the first update: it makes the optimizers of weights that have started.
    """

    def __init__(self, config: DistillationConfig, teacher: Teacher, processes: Processes) -> None:
        self.config, self.processes = config, processes
        torch.manual_seed(derive_seed(config.train.seed, "weights", 0))
        self.model = build_student(config.model, teacher)
        self.encoder = cast(Encoder, self.model.encoder)
        if config.train.initialization != "pytorch":
            start_encoder(self.encoder)
        cast(nn.Module, self.model).to(processes.device).train()
        self.decoding = Decoding(self.model)
        self.decoding.eval().requires_grad_(False)
        if config.train.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        self.ema: HybridAutoencoder | None = None
        self.student: Learner
        self.decoder: Learner | None = None

    def begin(self) -> None:
        """Distribute over the processes, and make averages and optimizers, from the weights as they are."""
        train = self.config.train
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False) if train.ema_decay else None
        self.student = Learner(self.encoder, self.processes, train, train.learning_rate, train.betas)
        if train.decoder_start is not None:
            self.decoding.requires_grad_(True)  # which DistributedDataParallel wants to see
            self.decoder = Learner(self.decoding, self.processes, train, train.decoder_rate, train.betas)
            self.decoding.requires_grad_(False)

    def average(self) -> None:
        """One step of the moving average of what learns, where there is one."""
        if self.ema is not None:
            for average, network in zip(self.parts(self.ema), self.parts(self.model), strict=True):
                average_into(average, network, self.config.train.ema_decay)

    def parts(self, hybrid: Any) -> list[nn.Module]:
        """Of a hybrid what learns in this run: its encoder and, where it does, the way through its decoder."""
        return [hybrid.encoder] if self.decoder is None else [hybrid.encoder, Decoding(hybrid)]

    @property
    def kept(self) -> HybridAutoencoder:
        """The autoencoder that a run leaves: the averaged one where there is one."""
        return self.model if self.ema is None else self.ema

    @property
    def learners(self) -> list[Learner]:
        return [self.student] if self.decoder is None else [self.student, self.decoder]
