"""How far apart are originals and reconstructions in the features of a network? rFID, FD-DINOv2 and KID.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from litevae import torchvision_shim
from litevae.evaluation.frechet import (
    add_vectors,
    check_images,
    count_images,
    few_images,
    frechet_distance,
    gaussian,
)
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.pixels import to_uint8
from litevae_kernels.checks import check_rank, wrong_value

REFERENCE = "originals"
_COMPARED = "reconstructions"


class ImageFeatures:
    """Features of images by one network, which sees each image once, however many metrics share this object.

    Protocol: images are rounded to the nearest of the 256 values, (x + 1) * 127.5, originals and reconstructions alike.

    Args:
        network: uint8 [B, 3, H, W] to floating point [B, D], on the images' device; it resizes by itself. It is put
            into eval mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()
        self._batch: Batch | None = None
        self._features: dict[str, Tensor] = {}  # of that batch alone

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features [B, D], in the network's dtype, of images [B, 3, H, W], float32 in [-1, 1]."""
        features: Tensor = self.network(to_uint8(images))
        check_rank("the network's features", features, "[B, D]")
        return features

    def originals(self, batch: Batch) -> Tensor:
        """[B, D]"""
        return self._once(batch, REFERENCE, batch.images)

    def reconstructions(self, batch: Batch) -> Tensor:
        """[B, D]"""
        return self._once(batch, _COMPARED, batch.reconstructions)

    def _once(self, batch: Batch, side: str, images: Tensor) -> Tensor:
        if self._batch is not batch:
            self._batch, self._features = batch, {}
        if side not in self._features:
            self._features[side] = self(images)
        return self._features[side]


class FrechetFeatureDistance(SetMetric):
    """rFID: the Frechet distance of the features of reconstructions from those of the same images (Heusel et al. 2017).

    Protocol: `ImageFeatures`; the distance as in `frechet_distance`, from float64 sums and unbiased covariances.
    Published FIDs take 50,000 images and Inception's 2,048 features; the result depends on both.

    Args:
        features: one object for all metrics of one network.
        reference: the `reference` of an earlier pass over the same originals: they are then not seen again. It is no
            part of `sums`, and every process is given it.

    Raises:
        ValueError: a reference without sums.
    """

    name = "rfid"

    def __init__(self, features: ImageFeatures, reference: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        if reference is not None and not count_images(dict(reference), REFERENCE):
            raise wrong_value("reference", "hold the sums of at least one image", sorted(reference))
        self.features = features
        self._given = None if reference is None else dict(reference)

    @property
    def reference(self) -> dict[str, Tensor]:
        """The sums over the originals, to be kept for another pass; empty before the first batch."""
        if self._given is not None:
            return self._given
        return {name: value for name, value in self.sums.items() if name.startswith(f"{REFERENCE}/")}

    def add(self, batch: Batch) -> None:
        if self._given is None:
            add_vectors(self.sums, REFERENCE, self.features.originals(batch).double()[None])  # [1, B, D]
        add_vectors(self.sums, _COMPARED, self.compared(batch).double()[None])

    def compared(self, batch: Batch) -> Tensor:
        """Features [B, D] of what is compared with the originals."""
        return self.features.reconstructions(batch)

    def values(self) -> dict[str, Any]:
        images, originals = count_images(self.sums, _COMPARED), count_images(self.reference, REFERENCE)
        check_images(self.name, images)
        check_images(f"the reference of {self.name}", originals)
        if self._given is None and originals != images:  # goes on from a state of a pass that was given a reference
            raise wrong_value(
                "reference", "be given again to go on", f"{originals} originals, {images} reconstructions"
            )
        mean, covariance = gaussian(self.sums, _COMPARED)  # [1, D], [1, D, D]
        reference = {name: value.to(mean.device) for name, value in self.reference.items()}
        return {self.name: frechet_distance(*gaussian(reference, REFERENCE), mean, covariance).item()}

    def warnings(self) -> list[str]:
        images = count_images(self.sums, _COMPARED)
        return few_images(self.name, images, self.sums[f"{_COMPARED}/sum"].shape[1]) if images else []


class DinoV2Distance(FrechetFeatureDistance):
    """FD-DINOv2 (Stein et al. 2023): rFID with the features of DINOv2, ViT-L/14's class token in publications."""

    name = "fid-dinov2"


class KID(SetMetric):
    """Kernel Inception distance (Binkowski et al. 2018), by torch-fidelity: its kernel, subsets and random numbers.

    Protocol: `ImageFeatures`; kernel (x.y / D + 1)^3, unbiased MMD^2 in float64, mean and standard deviation over 100
    random subsets of 1,000 images a side, of the first 10,000 images; not multiplied by 100 or 1000. It is unbiased for
    any number of images, and may be below 0. With 1,000 images or fewer there is one subset, all of them.

    Args:
        features: one object for all metrics of one network.
        seed: of the subsets; torch-fidelity's by default.
    """

    name = "kid"
    most_images = most_kept = 10_000
    subsets, subset_size = 100, 1000

    def __init__(self, features: ImageFeatures, seed: int = 2020) -> None:
        super().__init__()
        self.features, self.seed = features, seed

    def add(self, batch: Batch) -> None:
        both = torch.stack([self.features.originals(batch), self.features.reconstructions(batch)], dim=1).cpu()
        for index, features in zip(batch.indices, both, strict=True):  # [2, D]
            self.keep(index, features.clone())

    def values(self) -> dict[str, Any]:
        """ "kid", the mean, and "kid_std", over subsets."""
        torchvision_shim.install()  # torch-fidelity imports torchvision
        from torch_fidelity.metric_kid import (
            KEY_METRIC_KID_MEAN,
            KEY_METRIC_KID_STD,
            kid_features_to_metric,
        )

        check_images(self.name, len(self.kept))
        images = len(self.kept)
        features = torch.stack([self.kept[index] for index in sorted(self.kept)], dim=1).double()  # [2, N, D]
        result = kid_features_to_metric(
            *features,
            kid_subsets=self.subsets if images > self.subset_size else 1,
            kid_subset_size=min(self.subset_size, images),
            rng_seed=self.seed,
            verbose=False,
        )
        return {"kid": result[KEY_METRIC_KID_MEAN], "kid_std": result[KEY_METRIC_KID_STD]}
