"""Held-out images: a few are decoded once and kept, many are decoded anew each time they are iterated.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import functools
import itertools
import warnings
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor

from litevae.data.config import LAST, DataConfig
from litevae.data.crops import evaluation_view
from litevae.data.dead_leaves import dead_leaves
from litevae.data.errors import DataError, SkipCounts, read_or_skip
from litevae.data.image_sources import ImageSource
from litevae.data.split import HeldOutContents
from litevae.data.streaming import Stream, content_digest, spread_examples, usable_examples
from litevae.seeds import derive_rng

IN_MEMORY = 16
"""With `evaluation_images` up to this (the default) the decoded images are kept: a file may go away during a run."""

_MOST_COMPARED = 1024  # of a stream's usable examples, where none has a number below the share

NamedImages = Callable[[], Iterator[tuple[str, Image.Image]]]


class NoneUsableError(DataError):
    """Not one of the held-out images can be used."""


@dataclass(frozen=True)
class HeldOutImage:
    """One image that training never sees: float32 [3, H, W] in [-1, 1] on the CPU, as it is evaluated."""

    name: str
    image: Tensor


class HeldOutImages:
    """The first `evaluation_images` usable held-out images, in the same order in every iteration.

    Up to `IN_MEMORY` are kept by the first whole iteration; more are decoded anew in each. Where not one can be used,
    making or iterating it raises a NoneUsableError.
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
            raise NoneUsableError(self._none_usable)
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


def usable_images(source: ImageSource, config: DataConfig, skipped: SkipCounts) -> Iterator[tuple[int, Image.Image]]:
    """(index, image) of each that can be measured."""
    for index in range(len(source)):
        read, smallest = functools.partial(source.read, index), config.smallest_evaluation_side
        image = read_or_skip(read, source.name(index), smallest, skipped.add)
        if image is not None:
            yield index, image


def hold_out_source(source: ImageSource, config: DataConfig, skipped: SkipCounts) -> HeldOutImages:
    """The images of a source."""

    def usable() -> Iterator[tuple[str, Image.Image]]:
        for index, image in usable_images(source, config, skipped):
            yield source.title(index), image

    none_usable = f"none of the {len(source)} held-out images can be used, the first is {source.name(0)}"
    return HeldOutImages(usable, config, none_usable)


def hold_out_stream(
    stream: Stream, config: DataConfig, skipped: SkipCounts, contents: Container[bytes] | None = None
) -> HeldOutImages:
    """Images of a stream, which every iteration reads again: those with a digest in `contents`; None: any."""

    def usable() -> Iterator[tuple[str, Image.Image]]:
        if config.holdout_rule == LAST:
            examples = usable_examples(stream, config.smallest_evaluation_side, skipped.add)
        else:
            examples = spread_examples(stream, config, skipped.add, contents)
        for example, image in examples:
            yield example.name, image

    none_usable = f"data.path={config.path} must hold images, got none that can be used as held-out ones"
    return HeldOutImages(usable, config, none_usable)


def hold_out_contents(stream: Stream, config: DataConfig, skipped: SkipCounts) -> tuple[HeldOutImages, HeldOutContents]:
    """The share of a stream that is held out by content, at least one usable example and not all."""
    contents = HeldOutContents(config.holdout, config.holdout_seed)
    try:
        images = hold_out_stream(stream, config, skipped, contents)
    except NoneUsableError:
        some = itertools.islice(spread_examples(stream, config, skipped.add), _MOST_COMPARED)
        digests = [content_digest(example) for example, _ in some]
        if not digests:
            raise
        contents = replace(contents, also=frozenset({min(digests, key=contents.number)}))
        images = hold_out_stream(stream, config, skipped, contents)
    if next(usable_examples(stream, config.smallest_side, skipped.add, contents), None) is None:
        digests = [content_digest(example) for example, _ in spread_examples(stream, config, skipped.add, contents)]
        if len(digests) > 1:
            contents = replace(contents, but=frozenset({max(digests, key=contents.number)}))
            images = hold_out_stream(stream, config, skipped, contents)
    return images, contents


def hold_out_dead_leaves(config: DataConfig) -> HeldOutImages:
    """Drawn for the purpose: the same for every run, whatever its seed."""
    size, radius = config.evaluation_size or 256, config.dead_leaves_radius

    def drawn() -> Iterator[tuple[str, Image.Image]]:
        for index in itertools.count():
            pixels = dead_leaves(size, derive_rng(0, "held-out dead leaves", index), radius)
            yield f"dead leaves {index}", Image.fromarray(pixels)

    return HeldOutImages(drawn, config, "")
