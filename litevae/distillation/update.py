"""One step of distillation.

image -> [frozen teacher's encoder -> posterior]
image -> [student's encoder -> posterior -> decoder] -> [losses]
"""

import torch
from torch import Tensor

from litevae.distillation.config import DistillationConfig
from litevae.distillation.losses import DistillationLoss, Terms
from litevae.distillation.networks import DistillationNetworks
from litevae.distillation.teacher import Teacher
from litevae.models.latent import DiagonalGaussian
from litevae.pixels import to_float
from litevae.runs.processes import Processes
from litevae.seeds import derive_seed


class DistillationUpdate:
    """Changes the student, and from `train.decoder_start` on the decoder, one batch at a time.

    Nothing about it is random but dropout, a function of (seed, step, process): a resumed run equals an unbroken one.
    """

    def __init__(
        self,
        config: DistillationConfig,
        teacher: Teacher,
        networks: DistillationNetworks,
        loss: DistillationLoss,
        processes: Processes,
    ) -> None:
        self.config, self.teacher, self.networks, self.loss = config, teacher, networks, loss
        self.processes = processes
        processes.share_of(config.train.batch_size, config.train.accumulation)

    def __call__(self, pixels: Tensor, step: int) -> Terms:
        """One update, from this process's part of the batch; the terms are as `Progress` takes them.

        Args:
            pixels: uint8 [B, 3, H, W] on the device.
            step: how many updates came before.
        """
        train, networks, processes = self.config.train, self.networks, self.processes
        start = train.decoder_start
        tunes = start is not None and step >= start
        learners = networks.learners if tunes else networks.learners[:1]
        torch.manual_seed(derive_seed(train.seed, "dropout", step * processes.world_size + processes.rank))
        sums: Terms = {}
        networks.decoding.requires_grad_(tunes)
        for index, part in enumerate(pixels.chunk(train.accumulation)):
            is_last = index == train.accumulation - 1
            with processes.synchronising([learner.distributed for learner in learners], is_last):
                terms = self.backward(part, tunes)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term / train.accumulation
        networks.decoding.requires_grad_(False)
        for learner, name in zip(learners, ("student", "decoder"), strict=False):
            sums[f"{name}_gradient_norm"], sums[f"{name}_skipped"] = learner.step(train.schedule_of(step))
        networks.average()
        return sums

    def backward(self, pixels: Tensor, tunes: bool = False) -> Terms:
        """One pass of the teacher's encoder, one of the student, and the gradients; `tunes`: of the decoder too."""
        networks = self.networks
        image = to_float(pixels)  # [B, 3, H, W]
        teacher = self.teacher.posterior(image)
        dtype = self.config.train.autocast_dtype
        with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
            student = DiagonalGaussian(networks.student.distributed(image))  # of [B, C, H/8, W/8]
            decoded = None
            if self.config.loss.decodes:
                decode = networks.decoding if networks.decoder is None or not tunes else networks.decoder.distributed
                decoded = decode(student.mean)  # [B, 3, H, W]
            total, terms = self.loss(student, teacher, image, decoded)
        networks.student.backward(total / self.config.train.accumulation)
        return terms
