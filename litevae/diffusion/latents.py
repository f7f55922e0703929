"""The latents that a diffusion model sees: of pixels or of a cache, sampled from their posteriors, at unit scale.

image -> [frozen encoder -> latent] -> noise -> network
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from litevae.data.training_samples import Samples
from litevae.evaluation.autoencoders import EvaluatedAutoencoder, Posterior
from litevae.latent_cache.cache import LatentCache
from litevae.pixels import to_float
from litevae.seeds import derive_rng
from litevae_kernels.precision import tf32

NO_CLASS = -1


class LatentBatch(NamedTuple):
    """Samples of a run, as they come from the data."""

    content: Tensor
    """uint8 pixels [B, 3, H, W]; or, of a cache, float32 moments [B, 2C, h, w]."""
    labels: Tensor
    """int64 [B]: the class of each, NO_CLASS where there is none."""

    def to(self, device: torch.device, non_blocking: bool = False) -> "LatentBatch":
        content, labels = (tensor.to(device, non_blocking=non_blocking) for tensor in self)
        return LatentBatch(content, labels)


class CachedSamples(Samples):
    """Entries of a cache, in a new random order in every pass, mirrored at random where the cache has both.

    Args:
        entries: how many of them, from the first on; the others are held out.
    """

    def __init__(self, cache: LatentCache, entries: int, flips: bool, seed: int) -> None:
        super().__init__()
        self.cache, self.entries, self.flips, self.seed = cache, entries, flips and cache.has_flips, seed
        self._order: tuple[int, Any] | None = None

    def batch(self, numbers: Sequence[int]) -> LatentBatch:
        found = [self._read(n) for n in numbers]
        moments, labels = zip(*found, strict=True)
        return LatentBatch(torch.stack(moments), torch.tensor(labels, dtype=torch.int64))

    def _read(self, n: int) -> tuple[Tensor, int]:
        epoch, position = divmod(n, self.entries)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, derive_rng(self.seed, "order", epoch).permutation(self.entries))
        flipped = self.flips and derive_rng(self.seed, "flip", n).random() < 0.5
        latent = self.cache.read(int(self._order[1][position]), flipped)
        return latent.moments, NO_CLASS if latent.label is None else latent.label


class Latents:
    """From batches to what is modelled, and back to images.

    Args:
        autoencoder: it stays as it is.
        means, stds: of each channel; latents are divided by the one after the other is subtracted.
        sample: whether latents are samples of their posteriors, or their means.
    """

    def __init__(
        self, autoencoder: EvaluatedAutoencoder, means: Sequence[float], stds: Sequence[float], sample: bool, seed: int
    ) -> None:
        self.autoencoder, self.sample, self.seed = autoencoder, sample, seed
        self.means, self.stds = tuple(means), tuple(stds)
        device = autoencoder.device
        self._mean, self._std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (means, stds))

    def encode(self, content: Tensor, numbers: Sequence[int]) -> Tensor:
        """Latents [B, C, h, w] of a batch's content; the posterior's noise is a function of (seed, number)."""
        if content.dtype == torch.uint8:
            with tf32(False):
                posterior = self.autoencoder.encode(to_float(content))
        else:
            mean, logvar = content.chunk(2, dim=1)
            posterior = Posterior(mean, torch.exp(0.5 * logvar))
        latents = posterior.sample(self.seed, tuple(numbers)) if self.sample else posterior.mean
        return (latents - self._mean) / self._std

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] of what `encode` gives."""
        return self.autoencoder.decode(latents * self._std + self._mean)
