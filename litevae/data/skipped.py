"""Which images could not be used, and why? Each is named once and counted; a run goes on without it.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from litevae.data.images import UnreadableImageError

NAMED = 1000
"""So many are warned about by name; the rest is counted."""


class Skip(NamedTuple):
    """One image, or one shard that ends too early, that training goes on without."""

    name: str
    kind: str
    """"unreadable" or "too small"."""
    reason: str


class SkipCounts:
    """What was skipped since the run or its resumption began; a name that comes again counts once."""

    def __init__(self) -> None:
        self.first: list[Skip] = []
        self._kinds: Counter[str] = Counter()
        self._seen: set[str] = set()

    @property
    def total(self) -> int:
        """How many different images and shards."""
        return sum(self._kinds.values())

    def by_kind(self) -> dict[str, int]:
        """Kind -> how many, for the log."""
        return dict(self._kinds)

    def add(self, skip: Skip) -> None:
        """Count it if it is new, and warn of it by name."""
        if skip.name in self._seen:
            return
        self._seen.add(skip.name)
        self._kinds[skip.kind] += 1
        if self.total <= NAMED:
            self.first.append(skip)
            warnings.warn(f"skipped ({skip.kind}) {skip.name}: {skip.reason}", stacklevel=2)
        elif self.total == NAMED + 1:
            warnings.warn(f"skipped more than {NAMED} images: from here on they are only counted", stacklevel=2)


def usable(
    read: Callable[[], Image.Image], name: str, smallest: int, report: Callable[[Skip], None]
) -> Image.Image | None:
    """The image that `read` decodes; None, and a report of it, if it cannot or if a side is below `smallest`."""
    try:
        image = read()
    except UnreadableImageError as error:
        report(Skip(name, "unreadable", error.reason))
        return None
    if min(image.size) < smallest:
        need = f"both sides must have at least {smallest} pixels unless data.small_images=upscale"
        report(Skip(name, "too small", f"{image.width}x{image.height}; {need}"))
        return None
    return image
