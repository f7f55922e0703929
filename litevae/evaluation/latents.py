"""The statistics of latents: the scale that training writes into a model, and how far they are from N(0, I).

image -> DWT -> feature extraction -> aggregation -> [latent measured] -> decoder -> losses
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from litevae.evaluation.set_metric import Batch, SetMetric
from litevae_kernels.checks import wrong_value

ACTIVE_VARIANCE = 0.01
"""A channel is active where the variance of the posterior's mean is above it (Burda et al. 2016, section 5.2)."""
# Float32 latents this much closer to their mean than its own size are constant: 16 units in their last place.
_CONSTANT = 1e-6


class NoScaleError(ValueError):
    """Latents that are constant or not finite in a channel."""


@dataclass(frozen=True)
class LatentStatistics:
    """The scale of latents; a standard deviation is that of a whole population, above 0."""

    images: int
    mean: float
    std: float
    channel_means: tuple[float, ...]
    channel_stds: tuple[float, ...]

    @property
    def scaling_factor(self) -> float:
        """LDM's: 1 / `std`, with which `latent * scaling_factor` has the standard deviation 1."""
        return 1 / self.std


class Statistics(SetMetric):
    """Moments of posteriors over all images and places, channel by channel, by sums of powers in float64.

    Of samples: mean, standard deviation and LDM's scaling factor. No noise is drawn: Var[sample] = Var[mean] + E[var]
    over a posterior's mean and var, whatever the noise is. Of the posterior's mean: standard deviation, skewness,
    excess kurtosis (0 for a Gaussian, both without a correction for small samples), covariance and correlation
    between channels, active channels. Of the posterior: the root mean square of its standard deviation, and
    KL(q || N(0, 1)) = (mean^2 + var - 1 - log var) / 2 in nats per latent element.
    """

    name: ClassVar[str] = "statistics"

    def add(self, batch: Batch) -> None:
        self.add_posteriors(*posterior_of(batch))

    def add_posteriors(self, means: Tensor, stds: Tensor) -> None:
        """means and stds [B, C, h, w], added image by image: how they are split into batches changes no bit."""
        for mean, std in zip(means.cpu(), stds.cpu(), strict=True):
            x, var = mean.double().flatten(1), std.double().square().flatten(1)  # [C, h * w]
            self.accumulate("images", torch.tensor(1))
            self.accumulate("elements", torch.tensor(x.shape[1]))
            for power in (1, 3, 4):
                self.accumulate(f"mean^{power}", x.pow(power).sum(1))  # [C]
            self.accumulate("products", x @ x.T)  # [C, C]
            self.accumulate("var", var.sum(1))
            self.accumulate("kl", 0.5 * (x.square() + var - 1 - var.log()).sum(1))

    def scale(self) -> LatentStatistics:
        """The scale of samples.

        Raises:
            NoScaleError: a channel is constant or not finite.
            ValueError: no images.
        """
        means, variances = self._mean("mean^1"), self._covariance().diag() + self._mean("var")  # [C]
        channel_stds = tuple(variances.sqrt().tolist())
        if not (variances > 0).all():  # which NaN is not, and infinite latents make NaN
            rule = "be finite and vary in each channel to have a scale"
            raise NoScaleError(f"latents must {rule}, got standard deviations {channel_stds}")
        # The law of total variance, from channels to all.
        std = (variances.mean() + means.var(correction=0)).sqrt().item()
        images = int(self.sums["images"])
        return LatentStatistics(images, means.mean().item(), std, tuple(means.tolist()), channel_stds)

    def values(self) -> dict[str, Any]:
        """{"statistics": ...}; None stands for what is not finite, such as the KL of a deterministic encoder."""
        means, covariance, posterior = self._mean("mean^1"), self._covariance(), self._mean("var")
        spread = covariance.diag().sqrt()  # [C]
        variances = covariance.diag() + posterior
        std = (variances.mean() + means.var(correction=0)).sqrt().item()
        second, third, fourth = covariance.diag() + means**2, self._mean("mean^3"), self._mean("mean^4")
        skewness = (third - 3 * means * second + 2 * means**3) / spread**3
        kurtosis = (fourth - 4 * means * third + 6 * means**2 * second - 3 * means**4) / spread**4 - 3
        kl = self._mean("kl")
        result = {
            "images": int(self.sums["images"]),
            "mean": means.mean().item(),
            "std": std,
            "scaling_factor": 1 / std if std else math.nan,
            "kl": kl.mean().item(),
            "active_channels": int((covariance.diag() > ACTIVE_VARIANCE).sum()),
            "active_variance": ACTIVE_VARIANCE,
            "channel_means": means.tolist(),
            "channel_stds": variances.sqrt().tolist(),
            "stds_of_means": spread.tolist(),
            "posterior_stds": posterior.sqrt().tolist(),
            "channel_kl": kl.tolist(),
            "skewness": skewness.tolist(),
            "excess_kurtosis": kurtosis.tolist(),
            "covariance": covariance.tolist(),
            "correlation": (covariance / spread / spread[:, None]).tolist(),
        }
        return {self.name: finite(result)}

    def _mean(self, name: str) -> Tensor:
        """Over images and places, [C] or [C, C]."""
        check_images(self)
        return self.sums[name] / self.sums["elements"]

    def _covariance(self) -> Tensor:
        """Of the posterior's means, [C, C]; rows and columns of 0 for a channel that is constant up to rounding."""
        means = self._mean("mean^1")
        covariance = self._mean("products") - means * means[:, None]
        varies = ~(covariance.diag() <= (_CONSTANT * means) ** 2)  # NaN stays
        return torch.where(varies & varies[:, None], covariance, 0.0)


def posterior_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B, C, h, w]; a ValueError for a baseline, which has none."""
    if batch.means is None or batch.stds is None:
        raise wrong_value("batch.means", "be given for a metric of latents", None, "leave the metric out")
    return batch.means, batch.stds


def check_images(metric: SetMetric) -> None:
    """ValueError unless a metric that counts "images" has seen one."""
    if not metric.sums:
        raise wrong_value(f"images of {metric.name}", "be at least one", 0)


def finite(value: Any) -> Any:
    """`value` with None for every float that is not finite, which JSON has not."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@torch.no_grad()
def measure_latents(model: nn.Module, batches: Iterable[Tensor], device: torch.device) -> LatentStatistics:
    """Mean and standard deviation of samples of the posteriors of images: `Statistics.scale`.

    Args:
        model: a LiteVAE or StableDiffusionVAE on `device`; it is measured in eval mode and without autocast.
        batches: images [B, 3, H, W], all of one size, uint8 or floating point in [-1, 1], on any device.

    Raises:
        NoScaleError: a channel is constant or not finite.
        ValueError: no images.
    """
    metric = Statistics()
    was_training = model.training
    model.eval()
    with torch.compiler.set_stance("force_eager"):  # code compiled for training's batches would be compiled anew
        for images in batches:
            posterior = cast(Any, model).encode(images.to(device)).latent_dist
            metric.add_posteriors(posterior.mean, posterior.std)
    model.train(was_training)
    if not metric.sums:
        raise wrong_value("batches", "hold at least one image", "none")
    return metric.scale()
