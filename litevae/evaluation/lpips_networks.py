"""LPIPS on both of its trunks, VGG16 and AlexNet, from files that are never downloaded in secret.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from litevae.evaluation.weights import ALEXNET_FILE, VGG16_FILE, WeightSource, load_weights
from litevae.losses.perceptual import LpipsLoss
from litevae.losses.vgg import VGG16, Architecture, Trunk, load_lpips_weights
from litevae_kernels.checks import check_choice


@dataclass(frozen=True)
class _AlexNet(Architecture):
    """AlexNet (Krizhevsky 2014), one convolution a stage."""

    widths: ClassVar[tuple[int, ...]] = (64, 192, 384, 256, 256)
    smallest: ClassVar[int] = 31  # 7 after the first convolution, 3 and 1 after the poolings
    lpips_file: ClassVar[str] = "alex.pth"

    def stages(self) -> list[list[nn.Module]]:
        return [
            [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True)],
            [nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True)],
            [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)],
            [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)],
            [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)],
        ]


ALEXNET = _AlexNet("AlexNet", (1, 1, 1, 1, 1), ALEXNET_FILE.url)
_NETWORKS = {"lpips-vgg": (VGG16, VGG16_FILE), "lpips-alex": (ALEXNET, ALEXNET_FILE)}


def build_lpips(metric: str, source: WeightSource) -> LpipsLoss:
    """LPIPS v0.1 (Zhang et al. 2018), frozen, on the CPU, for `metrics.lpips_distance`; `trunk.architecture.smallest`
    is the least size of an image.

    Args:
        metric: "lpips-vgg" (as LDM and the paper measure) or "lpips-alex"; their numbers do not compare.

    Returns:
        Its `name` is the metric's or, where the trunk's weights are not the published ones, says so.

    Raises:
        WeightsError: the trunk's weights cannot be had, or the package lpips is not installed.
    """
    check_choice("metric", metric, _NETWORKS)
    architecture, file = _NETWORKS[metric]
    trunk = Trunk(architecture, last_activation=True)
    if source.random:
        trunk.randomize()
    else:
        trunk.fill(load_weights(file, metric, source, trunk.tensors(), ignored=("classifier.",)))
    return LpipsLoss(source.label(metric), trunk, load_lpips_weights(architecture))
