"""How far are samples from data? FWD and FID between as many of each.

noise -> [network, step by step -> latent -> frozen decoder] -> FID, FWD
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from litevae.data import open_data
from litevae.diffusion.config import DiffusionConfig
from litevae.diffusion.update import with_labels
from litevae.evaluation.autoencoders import BicubicBaseline
from litevae.evaluation.instruments import Instruments
from litevae.evaluation.measurement import join_sets
from litevae.evaluation.set_metric import Batch
from litevae.evaluation.weights import WeightSource
from litevae.losses.weight_files import WeightsError
from litevae.pixels import to_float
from litevae.runs.processes import Processes

_NAMES = {"fid": "rfid", "fwd": "fwd"}
"""What evaluation calls the same distance, between images and their reconstructions."""


class SampleQuality:
    """Distances between samples and data, as sets.

    Args:
        metrics: `fwd` or `fid`, or both.
        size: side of the images.
        weights: where FID's network is looked for.

    Raises:
        ValueError, WeightsError: a metric cannot be had.
    """

    def __init__(self, metrics: Sequence[str], size: int, device: torch.device, weights: WeightSource) -> None:
        asked = tuple(_NAMES[name] for name in metrics)
        try:
            instruments = Instruments(asked, BicubicBaseline(device), weights)
        except WeightsError as error:
            raise type(error)(str(error).replace("rfid", "fid", 1)) from error
        for name in metrics:
            if problem := instruments.problem(_NAMES[name], size):
                rule = f"{name} cannot be measured of samples with a side of {size}: {problem}"
                raise ValueError(f"{rule}; leave it out, or take another size")
        self._instruments, self._size, self.device = instruments, size, device
        self.begin()

    def begin(self) -> None:
        """Forget what was taken in; the networks stay."""
        self.instruments = self._instruments.at(self._size)

    def add(self, numbers: range, originals: Tensor, samples: Tensor) -> None:
        """Take in images of the data, uint8 [B, 3, size, size], and as many samples, floating point in [-1, 1].

        Args:
            numbers: the place of each, in both sets.
        """
        samples = samples.clamp(-1, 1).to(self.device)
        batch = Batch(tuple(numbers), to_float(originals.to(self.device)), samples)
        for metric in self.instruments.set_metrics:
            metric.add(batch)

    def values(self, processes: Processes | None = None) -> tuple[dict[str, float], list[str]]:
        """The distances by name, over what all processes have taken in, and warnings."""
        if processes is not None:
            join_sets(self.instruments.set_metrics, processes)
        values, _, warnings = self.instruments.set_values()
        named = {name.replace("rfid", "fid"): value for name, value in values.items()}
        return named, [warning.replace("rfid", "fid") for warning in warnings]


def other_crops(config: DiffusionConfig, count: int) -> tuple[Iterator[Tensor], str]:
    """Crops of a run's own data, uint8 [3, size, size], not those that are trained on; and what they are."""
    data = open_data(config.data, config.train.seed + 1)
    crops = data.first_crops(count, 1)
    return (crop for batch in crops for crop in with_labels(batch).content), f"crops of {data.description}"
