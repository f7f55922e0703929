"""The spectrum of latents beside that of the images: which frequencies hold the power, by the 2D DCT.

image -> DWT -> feature extraction -> aggregation -> [latent measured] -> decoder -> losses
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from litevae.evaluation.latents import check_images, finite, posterior_of
from litevae.evaluation.set_metric import Batch, SetMetric

BINS = 16


class Spectrum(SetMetric):
    """Power of the orthonormal DCT-II of each channel in radial bins (Skorokhodov et al. 2025; Spectrum Matching 2026).

    Latents are the posterior's means [B, C, h, w]. Coefficient (i, j) has the radius
    sqrt((i / (h - 1))^2 + (j / (w - 1))^2) / sqrt(2) in [0, 1], and a bin is a sixteenth of that. Of images the first
    h x w coefficients are taken: they are the same cosines, and leaving out the rest is an ideal downsampling to the
    latent's size. Coefficient (0, 0), the mean, is left out of both. A bin's power is the mean over its coefficients,
    channels and images, divided by the sum over bins. float64.
    """

    name: ClassVar[str] = "spectrum"

    def add(self, batch: Batch) -> None:
        means, _ = posterior_of(batch)
        height, width = means.shape[-2:]
        radius = radii(height, width).to(means.device)
        bins = (radius * BINS).long().clamp(max=BINS - 1)  # [h * w]
        counted = torch.ones_like(radius)
        counted[0] = 0
        self.accumulate("images", torch.tensor(len(means)))
        self.accumulate("coefficients", len(means) * _binned(counted, bins))  # [BINS]
        self.accumulate("radii", len(means) * _binned(counted * radius, bins))
        for name, x in (("latent_power", means), ("image_power", batch.images)):
            power = dct(x.double(), height, width).square().sum(0).flatten(1)  # [C, h * w]
            self.accumulate(name, _binned(counted * power, bins))  # [C, BINS]

    def values(self) -> dict[str, Any]:
        """{"spectrum": ...}: power by bin, None where a small latent has no coefficient.

        The slopes are those of log power over log radius, by least squares over the bins; "kl" is
        KL(images || latents) between the two distributions over bins, in nats.
        """
        check_images(self)
        radius = self.sums["radii"] / self.sums["coefficients"]  # [BINS]
        channels = self.sums["latent_power"] / self.sums["coefficients"]  # [C, BINS]
        latents = _normalised(channels.sum(0))
        images = _normalised(self.sums["image_power"].sum(0) / self.sums["coefficients"])
        both = (images > 0) & (latents > 0)
        result = {
            "images": int(self.sums["images"]),
            "radius": radius.tolist(),
            "latent_power": latents.tolist(),
            "image_power": images.tolist(),
            "latent_slope": _slope(radius, latents),
            "image_slope": _slope(radius, images),
            "channel_slopes": [_slope(radius, channel) for channel in channels],
            "kl": (images * (images / latents).log())[both].sum().item(),
        }
        return {self.name: finite(result)}


def dct(x: Tensor, height: int, width: int) -> Tensor:
    """The first height x width coefficients of the orthonormal 2D DCT-II: [..., H, W] -> [..., height, width]."""
    rows, columns = (_cosines(side).to(x)[:kept] for side, kept in zip(x.shape[-2:], (height, width), strict=True))
    return rows @ x @ columns.T


def radii(height: int, width: int) -> Tensor:
    """The radius of each of height x width coefficients in [0, 1], float64 [height * width]; a side of 1 counts 0."""
    rows, columns = (torch.linspace(0, 1, side, dtype=torch.float64) for side in (height, width))
    return (rows[:, None].square() + columns.square()).sqrt().flatten() / math.sqrt(2)


def _cosines(side: int) -> Tensor:
    """Row k: the k-th cosine of the orthonormal DCT-II, float64 [side, side]."""
    index = torch.arange(side, dtype=torch.float64)
    matrix = math.sqrt(2 / side) * torch.cos(math.pi / side * (index + 0.5) * index[:, None])
    matrix[0] /= math.sqrt(2)
    return matrix


def _binned(values: Tensor, bins: Tensor) -> Tensor:
    """Sums by bin, on the CPU: [..., h * w] -> [..., BINS]."""
    sums = values.new_zeros(*values.shape[:-1], BINS)
    return sums.index_add_(-1, bins, values).cpu()


def _normalised(power: Tensor) -> Tensor:
    return power / power.nansum()


def _slope(radius: Tensor, power: Tensor) -> float:
    """NaN with fewer than two bins that have power."""
    is_counted = power > 0
    x, y = radius[is_counted].log(), power[is_counted].log()
    x = x - x.mean()
    return ((x * y).sum() / x.square().sum()).item()
