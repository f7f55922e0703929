"""Do the metrics of images and of features say that more damage is worse, for every kind of it?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from litevae.evaluation.feature_distances import KID, FrechetFeatureDistance, ImageFeatures
from litevae.evaluation.lpips_networks import build_lpips
from litevae.evaluation.metrics import lpips_distance, psnr, ssim
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.evaluation.weights import WeightSource

from .damages import DAMAGES, crops

PHOTO = Image.fromarray(skimage.data.astronaut())


class Edges(torch.nn.Module):
    """uint8 [B, 3, H, W] to [B, 24]: means, and how strong the differences of neighbours are, of three sizes."""

    def forward(self, images: Tensor) -> Tensor:
        x, features = images.double() / 255, []
        for _ in range(3):
            features += [x.mean((2, 3)), x.diff(dim=2).abs().mean((2, 3)), x.diff(dim=3).abs().mean((2, 3))]
            x = torch.nn.functional.avg_pool2d(x, 2)
        return torch.cat(features, 1)[:, :24]


def of_features(kind: Callable[[ImageFeatures], SetMetric]) -> Callable[[Tensor, Tensor], float]:
    def distance(reconstructions: Tensor, images: Tensor) -> float:
        metric = kind(ImageFeatures(Edges()))
        metric.add(Batch(tuple(range(len(images))), images, reconstructions))
        value: float = metric.values()[metric.name]
        return value

    return distance


LPIPS = build_lpips("lpips-vgg", WeightSource(random=True))
WORSE: dict[str, Callable[[Tensor, Tensor], float]] = {
    "psnr": lambda x, y: -psnr(x, y).median().item(),  # infinite in flat corners
    "ssim": lambda x, y: -ssim(x, y).mean().item(),
    "lpips": lambda x, y: lpips_distance(LPIPS, x[::16], y[::16]).mean().item(),
    "rfid": of_features(FrechetFeatureDistance),
    "kid": of_features(KID),
}


@pytest.mark.parametrize("metric", WORSE)
@pytest.mark.parametrize("damage", DAMAGES)
def test_more_damage_is_worse(metric: str, damage: str):
    if damage == "translation" and metric in ("rfid", "kid"):
        pytest.skip("these features do not see where things are")
    amounts, apply = DAMAGES[damage]
    images = crops(PHOTO)
    values = [WORSE[metric](crops(apply(PHOTO, amount)), images) for amount in amounts]
    assert values == sorted(values)
    assert values[0] < values[-1]
