"""How far apart are originals and reconstructions in wavelet packets? The Frechet wavelet distance, without a network.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from typing import Any

import torch
from torch import Tensor

from litevae.evaluation.frechet import (
    ROWS,
    add_vectors,
    check_images,
    count_images,
    few_images,
    frechet_distance,
    gaussian,
)
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.pixels import to_uint8
from litevae_kernels import haar_dwt2d
from litevae_kernels.checks import wrong_value

LEVELS = 4
PACKETS = 4**LEVELS
MULTIPLE = 2**LEVELS
_SIDES = ("originals", "reconstructions")
_PENDING = 128  # images at once: the sums are then read and written seldom enough to be limited by arithmetic
_PACKETS_AT_ONCE = 16  # of the last step


class FWD(SetMetric):
    """Frechet wavelet distance (Veeramacheneni et al., arXiv 2312.15289).

    Protocol: both images rounded to 8 bits and scaled to [0, 1], as in files; orthonormal Haar packets of 4 levels,
    all 256 of them; for each packet a Gaussian over its D = 3 * H/16 * W/16 numbers, unbiased covariance; the mean of
    the 256 Frechet distances.

    Packets of 8-bit pixels are multiples of 1/16 up to 4080, so their sums in float64 are exact, for up to two million
    images: any split into batches and processes gives the same bits. The sums take 1.5 GB at 256x256, whatever the
    number of images (`state_gigabytes`), the last step 0.3 GB more.

    Args:
        most_gigabytes: images whose sums would take more are refused.

    Raises (from `add`):
        ValueError: a side that 16 does not divide, for which packets are not orthonormal; images of another size than
            those before; sums larger than `most_gigabytes`. `check_size` says so before a pass.
    """

    name = "fwd"

    def __init__(self, most_gigabytes: float = 8.0) -> None:
        super().__init__()
        self.most_gigabytes = most_gigabytes
        self._size: tuple[int, int] | None = None
        self._pending: list[Tensor] = []  # uint8 [2, B, 3, H, W]

    def add(self, batch: Batch) -> None:
        height, width = batch.images.shape[-2:]
        if self._size is None:
            check_size(height, width, self.most_gigabytes)
            self._size = height, width
        if self._size != (height, width):
            rule = f"all have the size of the first, {self._size}"
            raise wrong_value("images for fwd", rule, (height, width), "measure each size apart")
        self._pending.append(torch.stack([to_uint8(batch.images), to_uint8(batch.reconstructions)]))
        if sum(pixels.shape[1] for pixels in self._pending) >= _PENDING:
            self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        pixels = torch.cat(self._pending, dim=1)  # [2, N, 3, H, W]
        self._pending = []
        for side, images in zip(_SIDES, pixels, strict=True):
            for part in images.split(_PENDING):
                add_vectors(self.sums, side, wavelet_packets(part.float()).double())

    def values(self) -> dict[str, Any]:
        self.flush()
        check_images(self.name, count_images(self.sums, _SIDES[0]))
        total = 0.0
        for first in range(0, PACKETS, _PACKETS_AT_ONCE):
            originals, reconstructions = (gaussian(self.sums, side, first, first + _PACKETS_AT_ONCE) for side in _SIDES)
            total += frechet_distance(*originals, *reconstructions).sum().item()
        return {self.name: total / PACKETS / 255**2}

    def warnings(self) -> list[str]:
        self.flush()
        images = count_images(self.sums, _SIDES[0])
        return few_images(self.name, images, self.sums[f"{_SIDES[0]}/sum"].shape[1]) if images else []


def wavelet_packets(images: Tensor) -> Tensor:
    """Orthonormal Haar packets of 4 levels: every sub-band is transformed again, not L alone.

    Args:
        images: float32 or float64 [N, C, H, W], any strides, H and W multiples of 16.

    Returns:
        [256, N, C * H/16 * W/16], packets in the order of (level 4, ..., level 1), each of L H V D.
    """
    count, channels, height, width = images.shape
    bands = images
    for _ in range(LEVELS):
        # [N, 4C', H/2, W/2]: the new sub-band is the slowest of the channels, so no packet is mixed.
        (bands,) = haar_dwt2d(bands, memory_format=torch.contiguous_format)
    return bands.view(count, PACKETS, channels * height * width // PACKETS).transpose(0, 1)


def state_gigabytes(height: int, width: int) -> float:
    """What the sums over RGB images of this size take, in GB of 10^9 bytes."""
    numbers = 3 * height * width // PACKETS
    ends = [min(start + ROWS, numbers) for start in range(0, numbers, ROWS)]
    elements = sum((end - start) * end for start, end in zip([0, *ends], ends, strict=False))  # of the triangle
    return 2 * PACKETS * elements * 8 / 1e9


def check_size(height: int, width: int, most_gigabytes: float = 8.0) -> None:
    """Raise the ValueErrors of `FWD` for images of this size."""
    if height % MULTIPLE or width % MULTIPLE:
        raise wrong_value("images for fwd", f"have sides that {MULTIPLE} divides", (height, width), "crop them")
    needed = state_gigabytes(height, width)
    if needed > most_gigabytes:
        rule, way_out = f"take at most {most_gigabytes:g} GB", "measure smaller images, or raise most_gigabytes"
        raise wrong_value(f"the sums of fwd for {height}x{width}", rule, round(needed, 1), way_out)
