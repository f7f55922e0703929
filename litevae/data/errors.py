"""What is wrong with data: a DataError ends a run; an unusable image is skipped, named once and counted."""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

NAMED = 1000
"""So many skipped images are warned about by name; the rest are only counted."""
IGNORED_PROFILE = "ICC profile"
"""The kind of a `Skip` of an image's colour profile alone: the image itself is used, as if it were sRGB."""


class DataError(Exception):
    """No images to train or evaluate with; the message names the source and the way out, on one line."""


class UnreadableImageError(Exception):
    """An image that cannot be decoded. The message, on one line, names it and the reason; `reason` is the latter."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Skip(NamedTuple):
    """One unusable image, one shard that ends too early, or one unusable colour profile."""

    name: str
    kind: str
    """"unreadable", "too small" or `IGNORED_PROFILE`."""
    reason: str

    @property
    def is_used(self) -> bool:
        """Whether the image is used all the same."""
        return self.kind == IGNORED_PROFILE


class SkipCounts:
    """What was skipped since the run began or was resumed. Each name counts once, however often it is read."""

    def __init__(self) -> None:
        self.first: list[Skip] = []
        self._kinds: Counter[str] = Counter()
        self._seen: set[tuple[str, bool]] = set()

    @property
    def total(self) -> int:
        """How many different images and shards."""
        return sum(self.by_kind().values())

    def by_kind(self) -> dict[str, int]:
        """Kind -> how many, for the log; without the images that are used."""
        return {kind: count for kind, count in self._kinds.items() if kind != IGNORED_PROFILE}

    def add(self, skip: Skip) -> None:
        """Count it if it is new, and warn of it by name."""
        if (skip.name, skip.is_used) in self._seen:
            return
        self._seen.add((skip.name, skip.is_used))
        self._kinds[skip.kind] += 1
        count, verb = (self._kinds[IGNORED_PROFILE], "ignored") if skip.is_used else (self.total, "skipped")
        if count <= NAMED:
            self.first.append(skip)
            warnings.warn(f"{verb} ({skip.kind}) {skip.name}: {skip.reason}", stacklevel=2)
        elif count == NAMED + 1:
            what = "ICC profiles" if skip.is_used else "images"
            warnings.warn(f"{verb} more than {NAMED} {what}: no more of them are named", stacklevel=2)


def read_or_skip(
    read: Callable[[], Image.Image], name: str, smallest: int, report: Callable[[Skip], None]
) -> Image.Image | None:
    """The image that `read` decodes. If it cannot be decoded, or a side is below `smallest`: a report, and None.

    An image whose colour profile is ignored is reported and returned.
    """
    try:
        image = read()
    except UnreadableImageError as error:
        report(Skip(name, "unreadable", error.reason))
        return None
    if min(image.size) < smallest:
        need = f"both sides must have at least {smallest} pixels unless data.small_images=upscale"
        report(Skip(name, "too small", f"{image.width}x{image.height}; {need}"))
        return None
    if IGNORED_PROFILE in image.info:
        report(Skip(name, IGNORED_PROFILE, image.info[IGNORED_PROFILE]))
    return image


def one_line(error: BaseException) -> str:
    """The text of an error without its line breaks; its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
