"""Equivariance of a decoder: is a rotated or smaller latent the latent of the rotated or smaller image?

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from litevae.evaluation.latents import check_images, finite
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.seeds import derive_rng
from litevae_kernels.checks import check_int, wrong_value

KINDS = ("identity", "rotation", "scale")
SCALES = tuple(step / 32 for step in range(8, 32))


class Decodes(Protocol):
    """What this metric needs of an adapted model."""

    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, h, w] -> float32 [B, 3, H, W] in [-1, 1]."""


class Equivariance(SetMetric):
    """How far decode(T z) is from T x, over latents z of images x (EQ-VAE, Kouzelis et al. 2025, section 3).

    T is a rotation by 90, 180 or 270 degrees, or a bilinear resize by a scale in {8, ..., 31} / 32, without antialias,
    as EQ-VAE draws them: one of each for an image, from (seed, index of the image). A resized latent has whole
    elements, at least 1 a side, and its image as many pixels as its decoding. Beside them the identity: how far
    decode(z) is from x. The model must decode sides that are not those of its images.

    Args:
        model: the adapted model, in its own unscaled latents.
        seed: of the drawn rotations and scales.
    """

    name: ClassVar[str] = "equivariance"
    most_images: int | None = 256

    def __init__(self, model: Decodes, seed: int = 0) -> None:
        super().__init__()
        check_int("seed", seed, at_least=0)
        self.model, self.seed = model, seed

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        if batch.latents is None:
            raise wrong_value("batch.latents", "be given for a metric of latents", None, "leave the metric out")
        rows = zip(batch.indices, batch.latents, batch.images, batch.reconstructions, strict=True)
        for index, latent, image, reconstruction in rows:
            if self.most_images is not None and index >= self.most_images:
                continue
            self.accumulate("images", torch.tensor(1))
            self.accumulate("identity", _errors(reconstruction[None], image[None]))
            for kind, decoded, expected in self._transformed(index, latent[None], image[None]):
                self.accumulate(kind, _errors(decoded, expected))

    def _transformed(self, index: int, latent: Tensor, image: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(kind, decode(T z), T x) of one image; latent [1, C, h, w], image [1, 3, H, W]."""
        rng = derive_rng(self.seed, "equivariance", index)
        turns, scale = int(rng.integers(1, 4)), SCALES[rng.integers(len(SCALES))]
        decoded = self.model.decode(latent.rot90(turns, (2, 3)))
        yield "rotation", decoded, image.rot90(turns, (2, 3))
        height, width = (max(1, round(scale * side)) for side in latent.shape[-2:])
        decoded = self.model.decode(_resized(latent, height, width))
        yield "scale", decoded, _resized(image, *decoded.shape[-2:])

    def values(self) -> dict[str, Any]:
        """{"equivariance": {"images", and for each kind "squared" and "relative"}}.

        "squared" is the mean of (decode(T z) - T x)^2 over pixels in [-1, 1] and images; "relative" is its root over
        that of the mean of (T x - mean)^2, mean being that of each image and colour: 1 is what flat images have.
        """
        check_images(self)
        images = int(self.sums["images"])
        result: dict[str, Any] = {"images": images}
        for kind in KINDS:
            squared, variance = (self.sums[kind] / images).tolist()
            result[kind] = {"squared": squared, "relative": math.sqrt(squared / variance) if variance else None}
        return {self.name: finite(result)}


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def _errors(decoded: Tensor, expected: Tensor) -> Tensor:
    """Squared error of one image [1, 3, H, W], and the variance within it: float64 [2] on the CPU."""
    decoded, expected = decoded.double(), expected.double()
    centred = expected - expected.mean(dim=(2, 3), keepdim=True)
    return torch.stack([(decoded - expected).square().mean(), centred.square().mean()]).cpu()
