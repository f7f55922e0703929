"""The samples of a run, by number: where images can be read in any order, sample n is a function of (seed, n) alone.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

So a resumed run sees what an uninterrupted one would, with any number of processes and workers.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from litevae.data.config import DataConfig
from litevae.data.crops import random_crop
from litevae.data.dead_leaves import dead_leaves
from litevae.data.errors import DataError, Skip, read_or_skip
from litevae.data.image_sources import ImageSource
from litevae.data.images import to_pixels
from litevae.seeds import derive_rng


class Samples:
    """Sample n = 0, 1, 2 ... of a run: uint8 [3, crop_size, crop_size]."""

    def __init__(self) -> None:
        self._skips: list[Skip] = []

    def crop(self, n: int) -> Tensor:
        """Sample n; a DataError if nothing usable is left."""
        raise NotImplementedError

    def batch(self, numbers: Sequence[int]) -> Any:
        """The samples of these numbers, [B, 3, crop_size, crop_size], or what else has a length and `to`."""
        return torch.stack([self.crop(n) for n in numbers])

    def take_skips(self) -> list[Skip]:
        """The images skipped since the last call."""
        taken, self._skips = self._skips, []
        return taken

    def position(self) -> dict[str, Any] | None:
        """What the next sample depends on besides (seed, n), as plain values; None: nothing."""
        return None


class ImageSamples(Samples):
    """Crops of the images of a source, in a new random order in every pass over it.

    An unusable image is replaced by the next usable one of that order.
    """

    def __init__(self, source: ImageSource, config: DataConfig, seed: int) -> None:
        super().__init__()
        self.source, self.config, self.seed = source, config, seed
        self._order: tuple[int, np.ndarray] | None = None
        self._unusable: set[int] = set()
        self.latest = -1
        """The image of the last crop."""

    def crop(self, n: int) -> Tensor:
        return to_pixels(random_crop(self._image(n), self.config, derive_rng(self.seed, "crop", n)))

    def _image(self, n: int) -> Image.Image:
        count = len(self.source)
        epoch, position = divmod(n, count)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, derive_rng(self.seed, "order", epoch).permutation(count))
        for offset in range(count):
            self.latest = int(self._order[1][(position + offset) % count])
            image = self._read(self.latest)
            if image is not None:
                return image
        raise DataError(f"none of the {count} training images can be used; the warnings above say why")

    def _read(self, index: int) -> Image.Image | None:
        if index in self._unusable:
            return None
        source = self.source
        read, name = functools.partial(source.read, index), source.name(index)
        image = read_or_skip(read, name, self.config.smallest_side, self._skips.append)
        if image is None:
            self._unusable.add(index)
        return image


class DeadLeavesSamples(Samples):
    """Dead leaves, drawn at the size of a crop: they are scale invariant, so nothing is cut or resized."""

    def __init__(self, config: DataConfig, seed: int) -> None:
        super().__init__()
        self.size, self.radius, self.seed = config.crop_size, config.dead_leaves_radius, seed

    def crop(self, n: int) -> Tensor:
        pixels = dead_leaves(self.size, derive_rng(self.seed, "dead leaves", n), self.radius)  # [H, W, 3]
        return torch.from_numpy(pixels).permute(2, 0, 1)


class MixedSamples(Samples):
    """`second` for a share of the samples, drawn sample by sample, `first` for the others."""

    def __init__(self, first: Samples, second: Samples, second_share: float, seed: int) -> None:
        super().__init__()
        self.first, self.second, self.second_share, self.seed = first, second, second_share, seed

    def crop(self, n: int) -> Tensor:
        is_second = derive_rng(self.seed, "mix", n).random() < self.second_share
        return (self.second if is_second else self.first).crop(n)

    def take_skips(self) -> list[Skip]:
        return self.first.take_skips() + self.second.take_skips()
