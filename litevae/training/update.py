"""One step of training: a generator step and a discriminator step from the same forward pass.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from litevae.losses.adversarial import discriminator_loss, r1_penalty
from litevae.models.litevae import LiteVAEOutput
from litevae.pixels import to_float
from litevae.runs.learner import Learner
from litevae.runs.processes import Processes
from litevae.seeds import derive_seed
from litevae.training.config import RunConfig
from litevae.training.networks import Networks

Terms = dict[str, Tensor]


class Update:
    """Changes the networks, one batch at a time.

    Everything random about sample n of the run (its posterior noise) is a function of (seed, n), and dropout of
    (seed, step, process). So a checkpoint needs no generator's state, one process with a batch does what two do with
    its halves (up to dropout and what a discriminator takes from its whole batch: PatchGAN, StyleGAN), and on a CPU a
    resumed run equals an unbroken one bit for bit.
    """

    def __init__(self, config: RunConfig, networks: Networks, processes: Processes) -> None:
        self.config, self.networks, self.processes = config, networks, processes
        self.device = processes.device
        self.samples = processes.share_of(config.train.batch_size, config.train.accumulation)

    def __call__(self, pixels: Tensor, step: int) -> Terms:
        """One update of every network, from this process's part of the batch.

        Args:
            pixels: uint8 [B, 3, H, W] on the device, the samples of this process.
            step: how many updates came before.

        Returns:
            As `Progress` takes them: every loss term by name, unweighted; of "generator" and "discriminator" the
            gradient's norm, and 1.0 if the update was skipped because a gradient was not finite; where it is
            measured, "adversarial_gradient_ratio". All on the device; nothing here waits for it.
        """
        train, networks = self.config.train, self.networks
        discriminator = networks.discriminator if step >= self.config.loss.adversarial_start else None
        learners = [networks.generator] if discriminator is None else [networks.generator, discriminator]
        first = step * train.batch_size + self.processes.rank * self.samples
        torch.manual_seed(derive_seed(train.seed, "dropout", step * self.processes.world_size + self.processes.rank))
        sums: Terms = {}
        for index, part in enumerate(pixels.chunk(train.accumulation)):
            is_last = index == train.accumulation - 1
            with self.processes.synchronising([learner.distributed for learner in learners], is_last):
                terms = self.backward(part, first + index * len(part), discriminator, step)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term / train.accumulation
        schedule = train.schedule_of(step)
        for learner, name in zip(learners, ("generator", "discriminator"), strict=False):
            sums[f"{name}_gradient_norm"], sums[f"{name}_skipped"] = learner.step(schedule)
        networks.average()
        return sums

    def backward(self, pixels: Tensor, first_sample: int, discriminator: Learner | None, step: int) -> Terms:
        """One forward pass of the autoencoder, and the gradients that both networks take from it."""
        image = to_float(pixels)

        # generator step
        output = self._reconstruct(image, first_sample)
        ratio_every = self.config.train.gradient_ratio_every
        measure_ratio = ratio_every > 0 and step % ratio_every == 0
        total, terms = self._generator_loss(image, output, discriminator, first_sample, measure_ratio)
        self.networks.generator.backward(total / self.config.train.accumulation)

        # discriminator step
        if discriminator is not None:
            loss, discriminator_terms = self._discriminator_loss(image, output.sample.detach(), discriminator, step)
            discriminator.backward(loss / self.config.train.accumulation)
            terms |= discriminator_terms
        return terms

    def _reconstruct(self, image: Tensor, first_sample: int) -> LiteVAEOutput:
        """Encode, sample the posterior, decode."""
        with self._autocast():
            output: LiteVAEOutput = self.networks.generator.distributed(
                image, sample_posterior=True, generator=self._noise(first_sample, len(image))
            )
        return output

    def _generator_loss(
        self,
        image: Tensor,
        output: LiteVAEOutput,
        discriminator: Learner | None,
        first_sample: int,
        measure_ratio: bool = False,
    ) -> tuple[Tensor, Terms]:
        """Eq. (1). The discriminator is frozen, and in eval: no buffer of it changes."""
        networks = self.networks
        ema_reconstruction = None
        with self._autocast():
            if networks.ema is not None and self.config.loss.ldl_weight:
                with torch.no_grad():
                    noise = self._noise(first_sample, len(image))
                    ema_reconstruction = networks.ema(image, sample_posterior=True, generator=noise).sample
            fake_logits = None
            if discriminator is not None:
                with frozen(discriminator.network):
                    fake_logits = discriminator.network(output.sample)
            total, terms = networks.loss(
                image,
                output.sample,
                output.wavelet,
                output.latent_dist,
                fake_logits=fake_logits,
                ema_reconstruction=ema_reconstruction,
                last_layer=networks.model.last_layer,
                average=self.processes.average,
                measure_ratio=measure_ratio,
            )
        return total, terms

    def _discriminator_loss(
        self, image: Tensor, reconstruction: Tensor, discriminator: Learner, step: int
    ) -> tuple[Tensor, Terms]:
        """Real against fake in one forward pass, on a detached reconstruction: no gradient reaches the autoencoder.

        One pass, because DistributedDataParallel synchronises one; `parts` keeps the statistics of the halves apart.
        """
        own = self.config.discriminator
        penalise = own.r1_weight > 0 and step % own.r1_every == 0
        real = image.requires_grad_() if penalise else image
        with self._autocast():
            both = torch.cat([real, reconstruction.to(real.dtype)])
            logits = discriminator.distributed(both.contiguous(memory_format=torch.channels_last), parts=2)
        halves = zip(*(logit.float().chunk(2) for logit in logits), strict=True)
        real_logits, fake_logits = map(tuple, halves)
        loss = discriminator_loss(real_logits, fake_logits, self.config.loss.adversarial_loss)
        terms = {"discriminator": loss.detach()}
        if penalise:
            penalty = r1_penalty(real_logits, real)
            loss = loss + own.r1_weight * own.r1_every * penalty  # weighs as much as one of every step
            terms["r1"] = penalty.detach()
        return loss, terms

    def _noise(self, first_sample: int, count: int) -> list[torch.Generator]:
        """A generator for each sample's posterior noise."""
        seeds = (derive_seed(self.config.train.seed, "noise", first_sample + index) for index in range(count))
        return [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

    def _autocast(self) -> torch.autocast:
        dtype = self.config.train.autocast_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within, gradients pass through the network but not into its parameters, and its buffers do not change."""
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        network.train().requires_grad_(True)
