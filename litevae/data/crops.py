"""Training crops, cut at random, and the fixed view of a held-out image.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import math

import numpy as np
from PIL import Image
from torch import Tensor

from litevae.data.config import MIN_EVALUATION_SIZE, DataConfig
from litevae.data.images import to_tensor


def random_crop(image: Image.Image, config: DataConfig, rng: np.random.Generator) -> Image.Image:
    """Cut a square of random scale at a random place (or the centre), mirrored at random; small images are upscaled.

    With `config.resize`, place and size refer to the resized image. Only the square is resampled, never the whole
    image: a strip of 1 x 60,000 pixels costs no more memory than any other image.
    """
    size = config.crop_size
    width, height = resized_size(image.size, config.resize) if config.resize else image.size
    shown = size * math.exp(rng.uniform(0.0, math.log(config.max_downscale)))  # pixels of the image, a side
    shown = min(round(shown), width, height)
    if config.crop == "center":
        left, top = (width - shown) // 2, (height - shown) // 2
    else:
        left, top = int(rng.integers(width - shown + 1)), int(rng.integers(height - shown + 1))
    crop = _resample(image, (width, height), (left, top, left + shown, top + shown), size)
    if config.horizontal_flip and rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return crop


def evaluation_view(image: Image.Image, size: int | None) -> Tensor:
    """A held-out image as it is evaluated: float32 [3, H, W] in [-1, 1].

    With a size, its short side is resized to it (Lanczos) and the centre square is cut. Without one it stays whole; a
    short side below SSIM's window is treated as `size=MIN_EVALUATION_SIZE`.
    """
    if size is None and min(image.size) >= MIN_EVALUATION_SIZE:
        return to_tensor(image)
    return to_tensor(centre_square(image, size or MIN_EVALUATION_SIZE))


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The centre square of an image whose short side is resized to `size` (Lanczos)."""
    width, height = resized_size(image.size, size)
    left, top = (width - size) // 2, (height - size) // 2
    return _resample(image, (width, height), (left, top, left + size, top + size), size)


def resized_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Width and height of an image whose short side is resized to `short_side`."""
    scale = short_side / min(size)
    return max(short_side, round(size[0] * scale)), max(short_side, round(size[1] * scale))


def _resample(image: Image.Image, resized: tuple[int, int], box: tuple[int, int, int, int], size: int) -> Image.Image:
    """The square `box`, in pixels of the image resized to `resized`, as size x size pixels (Lanczos)."""
    if image.size == resized and box[2] - box[0] == size:
        return image.crop(box)
    x, y = image.width / resized[0], image.height / resized[1]
    # Rounding may put the far edge beyond the image by one ulp, which Pillow refuses.
    right, bottom = min(box[2] * x, image.width), min(box[3] * y, image.height)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(box[0] * x, box[1] * y, right, bottom))
