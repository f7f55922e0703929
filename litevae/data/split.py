"""Which images are held out? Those whose number, a hash of what each is called, is below `data.holdout`.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

So the same images are held out on every machine, whatever other images come or go, and they are spread over folders
and classes. The hash is seeded by `data.holdout_seed` and not by the run's seed: runs with other seeds are measured on
the same images. What an image is called: `ImageSource.identities`. An example of a stream is known by its content,
which training reads anyway: names such as "row 7 of shard 2" are others after the shards were made anew.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from litevae.data.config import LAST, DataConfig
from litevae.data.image_sources import ImageSource


def split(source: ImageSource, config: DataConfig) -> tuple[np.ndarray, int]:
    """All indices, and how many of them are held out, at least one and not all: the first ones, in that order."""
    count = len(source)
    if config.holdout_rule == LAST:
        first = count - min(max(1, round(count * config.holdout)), count - 1)
        return np.roll(np.arange(count), -first), count - first
    numbers = _numbers(source.identities(), config.holdout_seed)
    held_out = int(np.count_nonzero(numbers < config.holdout))
    return np.argsort(numbers, kind="stable"), min(max(1, held_out), count - 1)


def evaluation_order(source: ImageSource, config: DataConfig) -> np.ndarray:
    """The indices of images that are all held out: the first `evaluation_images` are spread over folders too."""
    if config.holdout_rule == LAST:
        return np.arange(len(source))
    return np.argsort(_numbers(source.identities(), config.holdout_seed), kind="stable")


def _numbers(identities: Iterable[str], seed: int) -> np.ndarray:
    """The number of each image, float64 [images]. Of several with the same identity each has one of its own.

    Systems change upper and lower case and the Unicode form of accents; they make no difference.
    """
    forms = (unicodedata.normalize("NFC", identity).casefold() for identity in identities)
    numbers = np.fromiter((hash_number(form.encode("utf-8", "surrogatepass"), seed) for form in forms), np.float64)
    order = np.argsort(numbers, kind="stable")
    for at in (np.flatnonzero(np.diff(numbers[order]) == 0) + 1).tolist():
        numbers[order[at]] = hash_number(float(numbers[order[at - 1]]).hex().encode(), seed)
    return numbers


def hash_number(identity: bytes, seed: int) -> float:
    """A number in [0, 1): 53 bits of a hash, the same on every machine."""
    digest = hashlib.blake2b(b"%d/%b" % (seed, identity), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


@dataclass(frozen=True)
class HeldOutContents:
    """The held-out examples of a stream, by `content_digest`: a container that needs no list of them."""

    share: float
    seed: int
    also: frozenset[bytes] = frozenset()
    """Held out though their number is not below the share: else none was."""
    but: frozenset[bytes] = frozenset()
    """Trained on though it is: else none was."""

    def __contains__(self, digest: object) -> bool:
        assert isinstance(digest, bytes)
        is_below = bool(digest) and self.number(digest) < self.share
        return digest in self.also or (is_below and digest not in self.but)

    def number(self, digest: bytes) -> float:
        """What is compared with the share."""
        return hash_number(digest, self.seed)
