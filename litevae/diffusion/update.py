"""One step of diffusion training.

latent -> [noise -> network -> loss]
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from litevae.diffusion.config import DIT_CLASSES, DiffusionConfig
from litevae.diffusion.latents import NO_CLASS, LatentBatch, Latents
from litevae.diffusion.networks import DiffusionNetworks
from litevae.diffusion.noise import Noising
from litevae.runs.processes import Processes
from litevae.seeds import derive_rng, derive_seed

Terms = dict[str, Tensor]


class DiffusionUpdate:
    """Changes the network, one batch at a time.

    Everything random about sample n of the run (its posterior's noise, its noise, its time, whether its class is left
    out) is a function of (seed, n), and dropout of (seed, step, process): a resumed run equals an unbroken one.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        latents: Latents,
        noising: Noising,
        networks: DiffusionNetworks,
        processes: Processes,
    ) -> None:
        self.config, self.latents, self.noising = config, latents, noising
        self.networks, self.processes = networks, processes
        self.samples = processes.share_of(config.train.batch_size, config.train.accumulation)

    def __call__(self, batch: LatentBatch | Tensor, step: int) -> Terms:
        """One update, from this process's part of the batch; the terms are as `Progress` takes them.

        Args:
            batch: on the device; a Tensor holds pixels without classes.
            step: how many updates came before.
        """
        train, networks, processes = self.config.train, self.networks, self.processes
        batch = with_labels(batch)
        first = step * train.batch_size + processes.rank * self.samples
        torch.manual_seed(derive_seed(train.seed, "dropout", step * processes.world_size + processes.rank))
        sums: Terms = {}
        contents, labels = (part.chunk(train.accumulation) for part in batch)
        for index, (content, part_labels) in enumerate(zip(contents, labels, strict=True)):
            is_last = index == train.accumulation - 1
            numbers = range(first + index * len(content), first + (index + 1) * len(content))
            with processes.synchronising([networks.learner.distributed], is_last):
                loss = self.loss(content, part_labels, numbers)
                networks.learner.backward(loss / train.accumulation)
            sums["total"] = sums.get("total", 0.0) + loss.detach() / train.accumulation
        sums["network_gradient_norm"], sums["network_skipped"] = networks.learner.step(train.schedule_of(step))
        networks.average()
        return sums

    def loss(self, content: Tensor, labels: Tensor, numbers: Sequence[int]) -> Tensor:
        """The mean squared error of the network's prediction, over all elements."""
        with torch.no_grad():
            latents = self.latents.encode(content, numbers)  # [B, C, h, w]
            noise = gaussian(latents, self.config.train.seed, "noise", numbers)
            times = self.noising.draw_times(self.config.train.seed, numbers).to(latents.device)
            noisy, target = self.noising.add(latents, noise, times)
            known = self._known(labels, numbers)
        dtype = self.config.train.autocast_dtype
        with torch.autocast(latents.device.type, dtype=dtype, enabled=dtype is not None):
            predicted = self.networks.learner.distributed(noisy, times, known)
        return (predicted.float() - target).square().mean()

    def _known(self, labels: Tensor, numbers: Sequence[int]) -> Tensor:
        """The labels, without those that this step leaves out."""
        share, seed = self.config.network.class_dropout, self.config.train.seed
        left_out = [derive_rng(seed, "class", number).random() < share for number in numbers]
        return torch.where(torch.tensor(left_out, device=labels.device) | (labels == NO_CLASS), DIT_CLASSES, labels)


def with_labels(batch: LatentBatch | Tensor) -> LatentBatch:
    """A batch of pixels alone has no classes."""
    if isinstance(batch, LatentBatch):
        return batch
    return LatentBatch(batch, torch.full((len(batch),), NO_CLASS, device=batch.device))


def gaussian(like: Tensor, seed: int, what: str, numbers: Sequence[int]) -> Tensor:
    """Noise with the shape of `like`, of each sample a function of (seed, what, its number)."""
    drawn = [
        torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(derive_seed(seed, what, number)))
        for number in numbers
    ]
    return torch.stack(drawn).to(like)
