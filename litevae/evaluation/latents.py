"""The scale of latents: mean and standard deviation, of all elements and of each channel.

image -> DWT -> feature extraction -> aggregation -> [latent measured] -> decoder -> losses
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from litevae_kernels.checks import wrong_value


class NoScaleError(ValueError):
    """Latents that are constant or not finite in a channel."""


@dataclass(frozen=True)
class LatentStatistics:
    """What `measure_latents` returns; a standard deviation is that of a whole population, above 0."""

    images: int
    mean: float
    std: float
    channel_means: tuple[float, ...]
    channel_stds: tuple[float, ...]

    @property
    def scaling_factor(self) -> float:
        """LDM's: 1 / `std`, with which `latent * scaling_factor` has the standard deviation 1."""
        return 1 / self.std


@torch.no_grad()
def measure_latents(model: nn.Module, batches: Iterable[Tensor], device: torch.device) -> LatentStatistics:
    """Mean and standard deviation of samples of the posteriors of images, by sums in float64.

    No noise is drawn: Var[sample] = Var[mean] + E[var] over a posterior's mean and var, whatever the noise is.

    Args:
        model: a LiteVAE or StableDiffusionVAE on `device`; it is measured in eval mode and without autocast.
        batches: images [B, 3, H, W], all of one size, uint8 or floating point in [-1, 1], on any device.

    Raises:
        NoScaleError: a channel is constant or not finite.
        ValueError: no images.
    """
    image_means, image_variances = [], []
    was_training = model.training
    model.eval()
    with torch.compiler.set_stance("force_eager"):  # code compiled for training's batches would be compiled anew
        for images in batches:
            posterior = cast(Any, model).encode(images.to(device)).latent_dist
            mean, var = posterior.mean.cpu().double(), posterior.var.cpu().double()  # [B, C, h, w]
            variance_of_means, mean_of_means = torch.var_mean(mean, dim=(2, 3), correction=0)
            image_means.append(mean_of_means)  # [B, C]
            image_variances.append(variance_of_means + var.mean(dim=(2, 3)))
    model.train(was_training)
    if not image_means:
        raise wrong_value("batches", "hold at least one image", "none")
    # The same law of total variance, from images to channels and from channels to all.
    means, variances = torch.cat(image_means), torch.cat(image_variances)  # [N, C]
    channel_means = means.mean(0)
    channel_variances = variances.mean(0) + means.var(0, correction=0)
    variance = channel_variances.mean() + channel_means.var(correction=0)
    channel_stds = tuple(channel_variances.sqrt().tolist())
    if not (channel_variances > 0).all():  # which NaN is not, and infinite latents make NaN
        raise NoScaleError(
            f"latents must be finite and vary in each channel to have a scale, got standard deviations {channel_stds}"
        )
    return LatentStatistics(
        len(means), channel_means.mean().item(), variance.sqrt().item(), tuple(channel_means.tolist()), channel_stds
    )
