"""How good are images halfway between latents? iFID, the number of an autoencoder that goes with a diffusion's FID.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from litevae.evaluation.feature_distances import FrechetFeatureDistance, ImageFeatures
from litevae.evaluation.set_metric import Batch
from litevae.seeds import derive_rng
from litevae_kernels.checks import check_rank, wrong_value

NEIGHBOURS = 10
IMAGENET_IMAGES = 1_281_167


class Decoder(Protocol):
    """The half of an autoencoder that iFID needs."""

    def decode(self, latents: Tensor, /) -> Tensor:
        """Latents [B, C, h, w] to images, float32 [B, 3, H, W] in [-1, 1]."""


class InterpolationDistance(FrechetFeatureDistance):
    """iFID (Xu et al. 2026, arXiv 2603.05630): rFID where each latent was first mixed with one of training.

    Protocol: of the 10 training latents with the largest cosine, flattened, one is drawn by softmax(-MSE), the mean
    over elements; the spherical midpoint with the image's latent is decoded, and compared with the images as in
    `FrechetFeatureDistance`. The published numbers search all latents of ImageNet's training images.

    Args:
        features, reference: as in `FrechetFeatureDistance`.
        model: of the latents, in their own scale.
        training_latents: [N, C, h, w] of images of its training, N at least 10, on the model's device.
        seed: the neighbour of an image is a function of (seed, its index).

    Raises:
        ValueError: fewer than 10 training latents, or of another rank; from `add`, latents of another shape, or none.
    """

    name = "ifid"

    def __init__(
        self,
        features: ImageFeatures,
        model: Decoder,
        training_latents: Tensor,
        seed: int = 0,
        reference: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(features, reference)
        check_rank("training_latents", training_latents, "[N, C, h, w]")
        if len(training_latents) < NEIGHBOURS:
            raise wrong_value("training_latents", f"hold at least {NEIGHBOURS} latents", len(training_latents))
        self.model, self.training_latents, self.seed = model, training_latents, seed
        self._norms = training_latents.flatten(1).norm(dim=1)  # [N]

    def compared(self, batch: Batch) -> Tensor:
        return self.features(self.model.decode(spherical_midpoint(*self.pairs(batch))))

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The latents of a batch and the training latents they are mixed with, both [B, C, h, w]."""
        shape, latents = self.training_latents.shape[1:], batch.latents
        if latents is None or latents.shape[1:] != shape:
            raise wrong_value("latents", f"have shape [B, {', '.join(map(str, shape))}] as those of training", latents)
        flat, training = latents.flatten(1), self.training_latents.flatten(1)  # [B, D], [N, D]
        cosines = flat @ training.mT / self._norms.clamp_min(1e-12)  # [B, N], times the norm of `flat`
        nearest = training[cosines.topk(NEIGHBOURS).indices]  # [B, 10, D]
        errors = (flat[:, None] - nearest).double().square().mean(2).cpu()  # [B, 10]
        drawn = [self._draw(index, error) for index, error in zip(batch.indices, errors, strict=True)]
        return latents, nearest[torch.arange(len(drawn)), drawn].view_as(latents)

    def _draw(self, index: int, errors: Tensor) -> int:
        weights = (-errors).softmax(0)  # [10]
        return int(derive_rng(self.seed, "ifid", index).choice(NEIGHBOURS, p=weights.numpy()))

    def warnings(self) -> list[str]:
        count = len(self.training_latents)
        if count >= IMAGENET_IMAGES:
            return super().warnings()
        few = f"ifid: neighbours are of {count} training latents, in publications of {IMAGENET_IMAGES}"
        return [*super().warnings(), f"{few}; among more, nearer ones are found"]


def spherical_midpoint(a: Tensor, b: Tensor) -> Tensor:
    """Slerp halfway of [B, ...], each of the B flattened: (a + b) / (2 cos(w / 2)), w the angle of a and b.

    Norms are not equalised. Of parallel latents it is their mean; of opposite ones it is not defined, and large.
    """
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1).double(), b.flatten(1).double())  # [B]
    half = ((1 + cosine) / 2).clamp_min(1e-12).sqrt()  # cos(w / 2)
    return (a + b) / (2 * half.to(a.dtype).view(-1, *[1] * (a.ndim - 1)))
