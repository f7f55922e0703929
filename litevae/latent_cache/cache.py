"""A cache of latents as it lies on disk, and how it is read.

    index.json                   what it is: model, data, protocol, statistics, and every shard with its hash
    shards/00000.safetensors     moments [N, 2C, h, w], moments_flipped (of the mirrored images), index, label, sums.*
    request.json                 what it was told; alone without index.json while it is being written

image -> DWT -> feature extraction -> aggregation -> [latent]
"""

import bisect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset

from litevae.evaluation.weights import file_hash

FORMAT = 1
INDEX, REQUEST, SHARDS = "index.json", "request.json", "shards"
AGAIN = f"start the command in its {REQUEST} again, which makes what is missing or damaged"


class CacheError(ValueError):
    """A cache that is not whole, or is of other latents than are asked for; the message names file and way out."""


@dataclass(frozen=True)
class CachedLatent:
    """The latent of one image."""

    moments: Tensor
    """float32 [2C, h, w]: mean, then log-variance."""
    index: int
    """The image's place in the data."""
    label: int | None
    """Its class; None where the data have none."""


class LatentCache(Dataset[CachedLatent]):
    """The latents that `python -m litevae.latents` has written: entry n is the n-th image that could be used.

    Args:
        folder: the cache. A shard is compared with its hash and mapped into memory when it is first read, in each
            process by itself; `read` raises a CacheError for one that is not as it was written.

    Raises:
        FileNotFoundError: no such folder, or no cache in it.
        CacheError: it is not finished, or a shard is missing or cut off.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = _read_index(folder)
        self.classes: tuple[str, ...] | None = None
        if self.index["classes"] is not None:
            self.classes = tuple(self.index["classes"])
        self.shape: tuple[int, int, int] = tuple(self.index["latent_shape"])
        """C, h, w"""
        self._ends: list[int] = []
        for shard in self.index["shards"]:
            self._check_shard(shard)
            self._ends.append((self._ends or [0])[-1] + shard["images"])
        self._opened: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, n: int) -> CachedLatent:
        return self.read(n)

    def read(self, n: int, flipped: bool = False) -> CachedLatent:
        """Entry n; `flipped`: of the mirrored image, which the cache must have (`has_flips`)."""
        if not 0 <= n < len(self):
            raise IndexError(f"the cache {self.folder} has entries 0 to {len(self) - 1}, got {n}")
        number = bisect.bisect_right(self._ends, n)
        row = n - (self._ends[number - 1] if number else 0)
        shard = self._shard(number)
        moments = shard.get_slice("moments_flipped" if flipped else "moments")[row]  # [2C, h, w]
        label = int(shard.get_slice("label")[row]) if self.classes is not None else None
        return CachedLatent(moments.float(), int(shard.get_slice("index")[row]), label)

    @property
    def has_flips(self) -> bool:
        return bool(self.index["flips"])

    def check_model(self, weights: str, name: str) -> None:
        """Raise a CacheError unless the cache is of the model with these weights (`state_hash`)."""
        own = self.index["model"]
        if own["weights"] != weights:
            raise CacheError(
                f"the cache {self.folder} must be of the latents of {name} ({weights[:19]}...), got those of "
                f"{own['name']} ({own['weights'][:19]}...); encode the images again with {name}, or use {own['name']}"
            )

    def verify(self) -> None:
        """Read every shard; a CacheError names the first that is not as it was written."""
        for shard in self.index["shards"]:
            self._check_bytes(shard)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": {}}  # a process opens its own

    def _shard(self, number: int) -> Any:
        if number not in self._opened:
            shard = self.index["shards"][number]
            self._check_bytes(shard)
            self._opened[number] = safe_open(self.folder / shard["file"], framework="pt")
        return self._opened[number]

    def _check_bytes(self, shard: Mapping[str, Any]) -> None:
        path = self.folder / shard["file"]
        if file_hash(path) != shard["sha256"]:
            raise CacheError(f"{path} must be as it was written, got other bytes; {AGAIN}")

    def _check_shard(self, shard: Mapping[str, Any]) -> None:
        path = self.folder / shard["file"]
        if not path.is_file():
            raise CacheError(f"{self.folder} must have {shard['file']}, got no such file; {AGAIN}")
        if path.stat().st_size != shard["bytes"]:
            got = f"got {path.stat().st_size} bytes instead of {shard['bytes']}"
            raise CacheError(f"{path} must be whole, {got}; {AGAIN}")


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        if (folder / REQUEST).is_file():
            raise CacheError(f"{folder} must be a finished cache, got one that was interrupted; {AGAIN}")
        found = "a folder without" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"{folder} must be a cache that litevae.latents has written, with {INDEX}, got {found}")
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = index["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path} must be the index of a cache, got {type(error).__name__}; delete it and {AGAIN}"
        ) from error
    if known != FORMAT:
        raise CacheError(f"{path} must have format {FORMAT}, got {known}; encode the images again into another folder")
    return index
