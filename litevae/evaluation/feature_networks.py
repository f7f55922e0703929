"""What is a network of features, and the Inception of FID and KID; DINOv2's is in dinov2.py.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]

Both resize images themselves, each in its own way; published numbers depend on it.
"""

import functools
import io
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from litevae.evaluation.weights import INCEPTION_FILE, WeightSource, load_weights, needed_packages
from litevae.losses.vgg import RANDOM_SEED
from litevae.state_hash import state_hash
from litevae_kernels.checks import wrong_kind, wrong_value
from litevae_kernels.precision import tf32


class FeatureNetwork(nn.Module, ABC):
    """Images to features, in float32 without TF32 or autocast, without gradients, always in eval.

    Args:
        network: on the CPU, with its weights.
        source: where these came from.
    """

    protocol: ClassVar[str]
    """Which network, which layer, how images are resized and normalised: part of the result."""
    width: int
    """How many features there are."""

    def __init__(self, network: nn.Module, source: WeightSource) -> None:
        super().__init__()
        self.network, self.source = network, source
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stay in eval."""
        super().train(False)
        return self

    def label(self, metric: str) -> str:
        """What a result is called: by the metric's own name only with the published weights."""
        return self.source.label(metric)

    @functools.cached_property
    def weights_hash(self) -> str:
        """ "sha256:..." of the network's state."""
        return state_hash(self.network)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The features.

        Args:
            images: uint8 [B, 3, H, W], of any size.

        Returns:
            float32 [B, width].

        Raises:
            TypeError, ValueError: images are not that.
        """
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            way_out = "round images in [-1, 1] with ((x + 1) * 127.5).round().to(torch.uint8)"
            raise wrong_kind("images", "be a uint8 tensor [B, 3, H, W]", images, way_out)
        if images.ndim != 4 or images.shape[1] != 3:
            raise wrong_value("images", "have shape [B, 3, H, W]", images)
        with torch.autocast(images.device.type, enabled=False), tf32(False):
            return self._features(images)

    @abstractmethod
    def _features(self, images: Tensor) -> Tensor:
        """[B, width] of uint8 [B, 3, H, W]."""


class Inception(FeatureNetwork):
    """The Inception of FID (Heusel et al. 2017), as torch-fidelity has it: 2048 features.

    torchmetrics' FID has another resize by default since 1.8; its `antialias=False` is this one.
    """

    protocol = (
        "Inception of 2015-12-05 (torch-fidelity), 2048 pooled features, resized to 299x299 as TensorFlow 1 does "
        "(bilinear, not antialiased), (x - 128) / 128, float32"
    )
    width = 2048

    def _features(self, images: Tensor) -> Tensor:
        (features,) = self.network(images)  # [B, 2048]
        return features


def build_inception(metric: str, source: WeightSource) -> Inception:
    """On the CPU.

    Args:
        metric: what needs it, for messages.

    Raises:
        WeightsError: its weights cannot be had, or torch-fidelity is not installed.
    """
    network = _unfilled_inception(metric)
    if source.random:
        randomize(network)
        return Inception(network, source)
    counters = {name: x.zero_() for name, x in network.state_dict().items() if name.endswith("num_batches_tracked")}
    expected = {name: x for name, x in network.state_dict().items() if name not in counters}
    weights = load_weights(INCEPTION_FILE, metric, source, expected, ignored=tuple(counters))
    for name, tensor in expected.items():
        tensor.copy_(weights[name])
    return Inception(network, source)


def randomize(network: nn.Module) -> None:
    """Random weights whose features keep their size (He et al. 2015), the same every time; norms that change nothing.

    The global generators stay as they are.
    """
    generator = torch.Generator(device="cpu").manual_seed(RANDOM_SEED)
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            nn.init.kaiming_normal_(tensor, nonlinearity="relu", generator=generator)
        else:
            tensor.fill_(1 if name.endswith((".weight", ".running_var")) else 0)


def _unfilled_inception(metric: str) -> nn.Module:
    """torch-fidelity's, whose parameters have no values yet."""
    with needed_packages(metric):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unfilled(FeatureExtractorInceptionV3):
        """It reads a file when it is made, and would download one: it is given one that holds nothing."""

        def load_state_dict(self, *_: Any, **__: Any) -> None:
            return

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.device("meta"):  # draws no random numbers
        network: nn.Module = Unfilled("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    return network.to_empty(device="cpu")
