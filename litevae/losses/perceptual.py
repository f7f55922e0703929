"""The perceptual term of Eq. (1): the distance between the features of a network trained on photos.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litevae.checks import check_same_shape, full_precision
from litevae.losses.vgg import TRUNKS, VGG16, VGG19, Trunk, build_trunk, load_lpips_weights
from litevae_kernels.checks import check_choice

KINDS = ("lpips", "vgg19")
# Added to a feature's squared length, so that a gradient exists at length 0. It is below float32's rounding for
# lengths above 0.03; theirs are 1 and more.
_EPS = 1e-10


@dataclass
class PerceptualConfig:
    """The `perceptual` section: which network compares, if `loss.perceptual_weight` is not 0."""

    kind: str = "lpips"
    """"lpips": LPIPS v0.1 on VGG16 (Zhang et al. 2018). "vgg19": ESRGAN's (Wang et al. 2018, Table 14), L1 between
    VGG19's conv5_4 before its activation."""
    trunk: str = "pretrained"
    """"pretrained": ImageNet's weights, which torchvision publishes. "random": for tests; every log then calls the
    term `..._random_trunk`."""
    path: str | None = None
    """A file of those weights: vgg16-397923af.pth for lpips, vgg19-dcbb9e9d.pth for vgg19. None: torch hub's cache,
    or else a download."""

    def __post_init__(self) -> None:
        check_choice("perceptual.kind", self.kind, KINDS)
        check_choice("perceptual.trunk", self.trunk, TRUNKS)
        if self.path is not None and not (isinstance(self.path, str) and self.path):
            raise ValueError(f"perceptual.path must be a file's name or null, got {self.path!r}")
        if self.path is not None and self.trunk == "random":
            raise ValueError(f"perceptual.path must be null for perceptual.trunk=random, got {self.path!r}")


def build_perceptual(config: PerceptualConfig) -> "PerceptualLoss":
    """The network of a config's `perceptual` section, frozen, on the CPU.

    Raises:
        TrunkError: its weights cannot be had.

    >>> perceptual = build_perceptual(PerceptualConfig(trunk="random"))
    >>> image = torch.rand(1, 3, 32, 32) * 2 - 1
    >>> perceptual.name, perceptual(image, image).item()
    ('lpips_random_trunk', 0.0)
    """
    name = config.kind if config.trunk == "pretrained" else f"{config.kind}_random_trunk"
    if config.kind == "lpips":
        weights = load_lpips_weights()
        return LpipsLoss(name, build_trunk(VGG16, config.trunk, config.path, last_activation=True), weights)
    return Vgg19Loss(name, build_trunk(VGG19, config.trunk, config.path, last_activation=False))


class PerceptualLoss(nn.Module, ABC):
    """(reconstruction, image) -> how different they look, through a frozen network that is always in eval.

    Under autocast the network is in half precision, and what compares its features in float32. The features of the
    image are made without a graph; the reconstruction gets its gradient although no parameter has one.
    """

    def __init__(self, name: str, trunk: Trunk) -> None:
        super().__init__()
        self.name = name
        """What logs call it."""
        self.trunk = trunk
        self.eval()

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Stay in eval: a parent's train() is about what learns."""
        super().train(False)
        return self

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """The mean of `distances`: a scalar."""
        return self.distances(reconstruction, image).mean()

    def distances(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """How different each pair looks.

        Args:
            reconstruction: [B, 3, H, W] in [-1, 1], any float dtype, H and W at least
                `trunk.architecture.smallest`, which is 16 for VGG.
            image: the same shape; it has no gradient.

        Returns:
            [B], float32 (float64 if the network is in float64), 0 or more.

        Raises:
            ValueError: the shapes differ, have not 3 channels, or are too small.
        """
        check_same_shape(reconstruction, image)
        channels, height, width = image.shape[1:]
        if channels != 3:
            raise ValueError(f"image must have 3 channels (RGB), got {channels}")
        smallest = self.trunk.architecture.smallest
        if min(height, width) < smallest:
            raise ValueError(
                f"image must be at least {smallest}x{smallest} pixels for the poolings of "
                f"{self.trunk.architecture.name}, got {height}x{width}; use larger crops or set "
                f"loss.perceptual_weight to 0"
            )
        return self._distances(self.trunk.normalize(reconstruction), self.trunk.normalize(image.detach()))

    @abstractmethod
    def _distances(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """`distances` of what the trunk takes."""


class LpipsLoss(PerceptualLoss):
    """LPIPS v0.1 (Zhang et al. 2018) on VGG16, relu1_2 to relu5_3, or on another trunk of five stages.

    After each of the five, features are divided by their length over the channels; their squared difference is weighted
    by channel, summed over channels, and averaged over positions. The five numbers are added.

    Values are the package lpips' to rounding. Unlike there, the gradient of zero features is finite, and there is no
    Dropout.
    """

    def __init__(self, name: str, trunk: Trunk, weights: list[Tensor]) -> None:
        super().__init__(name, trunk)
        self.weights = nn.ParameterList([nn.Parameter(weight, requires_grad=False) for weight in weights])

    def _distances(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        total = reconstruction.new_zeros(len(reconstruction))
        for stage, weight in zip(self.trunk.stages, self.weights, strict=True):
            with torch.no_grad():
                image = stage(image)  # [B, C, h, w]
            reconstruction = stage(reconstruction)
            total = total + _weighted_distance(reconstruction, image, weight)
        return total


class Vgg19Loss(PerceptualLoss):
    """ESRGAN's perceptual loss (Wang et al. 2018): mean absolute difference of VGG19's conv5_4, before its ReLU."""

    def _distances(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        for stage in self.trunk.stages:
            with torch.no_grad():
                image = stage(image)  # [B, C, h, w]
            reconstruction = stage(reconstruction)
        return (full_precision(reconstruction) - full_precision(image)).abs().flatten(1).mean(1)


def _weighted_distance(reconstruction: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    """[B]: the weighted squared difference of unit features [B, C, h, w], summed over C, mean over h and w."""
    with torch.no_grad():
        image = _unit_length(image)
    difference = _unit_length(reconstruction) - image
    return (difference.square() * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))  # [B, C, h, w] -> [B, h, w] -> [B]


def _unit_length(features: Tensor) -> Tensor:
    """[B, C, h, w], any float dtype, divided by the length over C, in float32 (float64 for float64)."""
    features = full_precision(features)
    return features * (features.square().sum(1, keepdim=True) + _EPS).rsqrt()
