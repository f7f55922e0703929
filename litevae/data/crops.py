"""Which crop is sample n of a run? A pure function of (seed, n), so a resumed run sees what an unbroken one would.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import hashlib
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from litevae.data.config import MIN_EVALUATION_SIZE, DataConfig
from litevae.data.images import to_tensor
from litevae.data.sources import PhotoSource


def derive_seed(seed: int, purpose: str, index: int) -> int:
    """A seed of its own for every (run seed, purpose, index): 63 bits, the same on every machine and process."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class CropStream(Dataset[Tensor]):
    """Sample n of a run, n = 0, 1, 2 ...: float32 [3, crop_size, crop_size] in [-1, 1].

    Photos come in a new random order in every pass over the source; where and how the crop is cut is drawn from
    (seed, n). Nothing depends on what was asked for before, nor on which process asks.
    """

    def __init__(self, source: PhotoSource, config: DataConfig, seed: int) -> None:
        self.source = source
        self.config = config
        self.seed = seed
        self._order: tuple[int, np.ndarray] | None = None

    def __getitem__(self, n: int) -> Tensor:
        rng = np.random.default_rng(derive_seed(self.seed, "crop", n))
        photo = self.source[self._photo_of(n)]
        return to_tensor(random_crop(photo.image, self.config, rng))

    def _photo_of(self, n: int) -> int:
        epoch, position = divmod(n, len(self.source))
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng(derive_seed(self.seed, "order", epoch))
            self._order = (epoch, rng.permutation(len(self.source)))
        return int(self._order[1][position])


def random_crop(image: Image.Image, config: DataConfig, rng: np.random.Generator) -> Image.Image:
    """Cut a square at a random place, scale and side up; a photo smaller than it is upscaled to fill it."""
    size = config.crop_size
    shown = size * math.exp(rng.uniform(0.0, math.log(config.max_downscale)))  # side of the square, in photo pixels
    shown = min(round(shown), *image.size)
    left = int(rng.integers(image.width - shown + 1))
    top = int(rng.integers(image.height - shown + 1))
    box = (left, top, left + shown, top + shown)
    if shown == size:
        crop = image.crop(box)
    else:
        crop = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    if config.horizontal_flip and rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return crop


def evaluation_view(image: Image.Image, size: int | None) -> Tensor:
    """A held-out photo as it is evaluated: float32 [3, H, W] in [-1, 1].

    With a size, its short side is resized to it (Lanczos) and the centre square is cut; without one it stays whole,
    unless it is smaller than the metrics' window.
    """
    if size is None and min(image.size) >= MIN_EVALUATION_SIZE:
        return to_tensor(image)
    size = size or MIN_EVALUATION_SIZE
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return to_tensor(resized.crop((left, top, left + size, top + size)))


def crop_batches(
    stream: CropStream, *, first_step: int, last_step: int, batch_size: int, workers: int, pin_memory: bool
) -> torch.utils.data.DataLoader[Tensor]:
    """Batches of steps first_step .. last_step - 1; step s holds samples s * batch_size and following."""
    return torch.utils.data.DataLoader(
        stream,
        batch_size=batch_size,
        sampler=range(first_step * batch_size, last_step * batch_size),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_interrupt,
    )


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of the group; the trainer alone decides what it means."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
