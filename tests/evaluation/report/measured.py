"""The `details` of results.json as the metrics of latents really measure them, of invented tensors."""

import functools
import json
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from litevae.evaluation.equivariance import Equivariance
from litevae.evaluation.latents import Statistics
from litevae.evaluation.mmd import MMD
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.evaluation.spectrum import Spectrum


class Repeats:
    """A decoder that shows the first three channels, each element as 2 x 2 pixels."""

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents[:, :3], scale_factor=2).clamp(-1, 1)


def measured_details(channels: int = 4, seed: int = 0, constant: bool = False) -> dict[str, Any]:
    """Of four images, read from JSON; all models see the same images.

    Args:
        constant: the last channel is 0, and its posterior has no spread, as an encoder without noise has.
    """
    return dict(json.loads(_as_json(channels, seed, constant)))


@functools.cache
def _as_json(channels: int, seed: int, constant: bool) -> str:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(7)) * 2 - 1
    means = torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    means[:, 1] += 0.5 * means[:, 0] + 0.25
    stds = torch.full_like(means, 0.5)
    if constant:
        means[:, -1] = stds[:, -1] = 0
    decoder = Repeats()
    batch = Batch((0, 1, 2, 3), images, decoder.decode(means), means, means, stds)
    metrics: list[SetMetric] = [Statistics(), Spectrum(), Equivariance(decoder), MMD()]
    values: dict[str, Any] = {}
    for metric in metrics:
        metric.add(batch)
        values |= metric.values()
    return json.dumps(values, allow_nan=False)
