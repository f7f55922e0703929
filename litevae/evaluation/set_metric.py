"""What a metric of a set of images is: sums that add up over batches, processes and interrupted passes.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images of one size that went through an autoencoder together, on its device."""

    indices: tuple[int, ...]
    """The place of each image in the data, from 0; unique."""
    images: Tensor
    """float32 [B, 3, H, W] in [-1, 1]."""
    reconstructions: Tensor
    """float32 [B, 3, H, W], clamped to [-1, 1], not rounded."""
    latents: Tensor | None = None
    """float32 [B, C, h, w]: what was decoded, a mode or a sample. None for a baseline that has none."""
    means: Tensor | None = None
    """float32 [B, C, h, w]: the posterior's mean."""
    stds: Tensor | None = None
    """float32 [B, C, h, w]: the posterior's standard deviation, 0 where the encoder is deterministic; None as above."""


class SetMetric(ABC):
    """A metric whose whole state is `sums` and `kept`: it can be saved, and joined with another process's.

    Of N images any split into batches, and any split over processes, gives the same state, up to rounding.
    """

    name: ClassVar[str]
    """As `--metrics` and results.json call it."""
    most_images: int | None = None
    """Only images whose index is below it are seen; None: all."""
    most_kept: int = 0
    """So many entries of `kept` at most, those of the lowest indices."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        """Name -> float64 or int64, added up over images."""
        self.kept: dict[int, Tensor] = {}
        """Index of an image -> what is kept of it, on the CPU."""

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Take in a batch; all that is remembered of it is in `sums` and `kept`, at the latest after `flush`."""

    def flush(self) -> None:  # noqa: B027
        """Bring `sums` and `kept` up to date, where batches are put off; to be called before they are read."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """The result, as JSON has it; a float under the metric's own name where it is one number.

        Raises:
            ValueError: too few images.
        """

    def warnings(self) -> list[str]:
        """What must be said beside the result, such as that there were few images."""
        return []

    def accumulate(self, name: str, value: Tensor) -> None:
        """sums[name] += value, on the value's device."""
        add_to(self.sums, name, value)

    def keep(self, index: int, value: Tensor) -> None:
        """kept[index] = value, unless it is beyond `most_kept`."""
        self.kept[index] = value.cpu()
        if len(self.kept) > self.most_kept:
            del self.kept[max(self.kept)]

    def merge(self, sums: dict[str, Tensor], kept: dict[int, Tensor]) -> None:
        """Take in the state of this metric over other images."""
        for name, value in sums.items():
            self.accumulate(name, value)
        for index, value in kept.items():
            self.keep(index, value)


def add_to(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    """sums[name] += value, on the value's device: a state that was loaded is on the CPU."""
    sums[name] = sums[name].to(value.device).add_(value) if name in sums else value.clone()
