"""Which pixels were measured? A hash that grows with the pass, whatever the order of images and processes.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import hashlib
from typing import Any, ClassVar

import torch
from torch import Tensor

from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.pixels import to_uint8

_SUM = "digests"


class ContentHash(SetMetric):
    """The sum of the images' hashes, each of (index, size, pixels of 8 bits), and how many there were.

    As a SetMetric it goes through batches, processes and interruptions with the others. A hash of an image has four
    parts of 64 bits, which are added modulo 2^64: a change of any image, index or number of images shows.

    >>> whole, half, other_half = ContentHash(), ContentHash(), ContentHash()
    >>> pixels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    >>> whole.add_pixels((0, 1), pixels)
    >>> half.add_pixels((1,), pixels[1:])
    >>> other_half.add_pixels((0,), pixels[:1])
    >>> half.merge(other_half.sums, other_half.kept)
    >>> half.hexdigest() == whole.hexdigest()
    True
    """

    name: ClassVar[str] = "content-hash"

    def add(self, batch: Batch) -> None:
        """Take in the images of a batch, which were pixels of 8 bits."""
        self.add_pixels(batch.indices, to_uint8(batch.images))

    def add_pixels(self, indices: tuple[int, ...], pixels: Tensor) -> None:
        """Take in images, uint8 [B, 3, H, W]."""
        parts = [_digest(index, image) for index, image in zip(indices, pixels.cpu(), strict=True)]
        self.accumulate(_SUM, torch.stack(parts).sum(0).to(pixels.device))  # [5], int64, which wraps around

    def hexdigest(self) -> str:
        """ "blake2b:..." of everything added so far."""
        total = self.sums.get(_SUM, torch.zeros(5, dtype=torch.int64))
        return f"blake2b:{hashlib.blake2b(_little_endian(total), digest_size=32).hexdigest()}"

    def values(self) -> dict[str, Any]:
        """{"content-hash": `hexdigest`}"""
        return {self.name: self.hexdigest()}


def _digest(index: int, image: Tensor) -> Tensor:
    """int64 [5]: four parts of a hash of one image [3, H, W], and 1."""
    digest = hashlib.blake2b(f"{index} {list(image.shape)} ".encode(), digest_size=32)
    digest.update(image.contiguous().numpy().data)
    parts = [int.from_bytes(digest.digest()[i : i + 8], "little", signed=True) for i in range(0, 32, 8)]
    return torch.tensor([*parts, 1])


def _little_endian(total: Tensor) -> bytes:
    return b"".join(value.to_bytes(8, "little", signed=True) for value in total.tolist())
