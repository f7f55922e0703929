"""Held-out images: a few are decoded once and kept, many are decoded anew each time they are iterated.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from litevae.data.config import DataConfig
from litevae.data.crops import evaluation_view
from litevae.data.dead_leaves import dead_leaves
from litevae.data.errors import DataError, SkipCounts, read_or_skip
from litevae.data.image_sources import ImageSource
from litevae.data.streaming import Stream, usable_examples
from litevae.seeds import derive_rng

IN_MEMORY = 16
"""With `evaluation_images` up to this (the default) the decoded images are kept: a file may go away during a run."""

NamedImages = Callable[[], Iterator[tuple[str, Image.Image]]]


@dataclass(frozen=True)
class HeldOutImage:
    """One image that training never sees: float32 [3, H, W] in [-1, 1] on the CPU, as it is evaluated."""

    name: str
    image: Tensor


class HeldOutImages:
    """The first `evaluation_images` usable held-out images, in the same order in every iteration.

    Up to `IN_MEMORY` are kept by the first whole iteration; more are decoded anew in each. Where not one can be used,
    making or iterating it raises a DataError.
    """

    changed: frozenset[str] = frozenset()
    """What only one of the first and the last whole iteration had: results over different images do not compare."""

    def __init__(self, usable: NamedImages, config: DataConfig, none_usable: str) -> None:
        self._usable, self._none_usable = usable, none_usable
        self._limit, self._size = config.evaluation_images, config.evaluation_size
        self._kept: list[HeldOutImage] = []
        self._first_names: frozenset[str] | None = None
        next(iter(self))

    def __iter__(self) -> Iterator[HeldOutImage]:
        if self._kept:
            yield from self._kept
            return
        names, kept = [], []
        for name, image in itertools.islice(self._usable(), self._limit):
            item = HeldOutImage(name, evaluation_view(image, self._size))
            names.append(name)
            if self._limit <= IN_MEMORY:
                kept.append(item)
            yield item
        if not names:
            raise DataError(self._none_usable)
        self._kept = kept
        self._compare(frozenset(names))

    def _compare(self, names: frozenset[str]) -> None:
        """Note, and warn once, where the images are not those of the first iteration."""
        self._first_names = self._first_names or names
        changed = names ^ self._first_names
        if changed - self.changed:
            some = ", ".join(sorted(changed)[:8])
            warnings.warn(f"the held-out images changed during the run: {len(changed)} differ ({some})", stacklevel=3)
        self.changed = changed


def hold_out_source(source: ImageSource, config: DataConfig, skipped: SkipCounts) -> HeldOutImages:
    """The images of a source."""

    def usable() -> Iterator[tuple[str, Image.Image]]:
        for index in range(len(source)):
            read, smallest = functools.partial(source.read, index), config.smallest_evaluation_side
            image = read_or_skip(read, source.name(index), smallest, skipped.add)
            if image is not None:
                yield source.title(index), image

    none_usable = f"none of the {len(source)} held-out images can be used, the first is {source.name(0)}"
    return HeldOutImages(usable, config, none_usable)


def hold_out_stream(stream: Stream, config: DataConfig, skipped: SkipCounts) -> HeldOutImages:
    """The first images of a stream, which every iteration reads again from its front."""

    def usable() -> Iterator[tuple[str, Image.Image]]:
        for example, image in usable_examples(stream, config.smallest_evaluation_side, skipped.add):
            yield example.name, image

    none_usable = f"data.path={config.path} must hold images, got none that can be used as held-out ones"
    return HeldOutImages(usable, config, none_usable)


def hold_out_dead_leaves(config: DataConfig) -> HeldOutImages:
    """Drawn for the purpose: the same for every run, whatever its seed."""

    def drawn() -> Iterator[tuple[str, Image.Image]]:
        for index in itertools.count():
            pixels = dead_leaves(config.evaluation_size or 256, derive_rng(0, "held-out dead leaves", index))
            yield f"dead leaves {index}", Image.fromarray(pixels)

    return HeldOutImages(drawn, config, "")
