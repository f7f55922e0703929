"""Photographs made worse in known ways, a little and then more: what every metric must notice."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

from litevae.data.images import to_tensor

DAMAGES: dict[str, tuple[tuple[float, ...], Callable[[Image.Image, float], Image.Image]]] = {
    "blur": ((0.5, 1, 2, 4), lambda photo, sigma: photo.filter(ImageFilter.GaussianBlur(sigma))),
    "noise": ((2, 5, 10, 30), lambda photo, sigma: with_noise(photo, sigma)),
    "jpeg": ((90, 60, 30, 10), lambda photo, quality: as_jpeg(photo, int(quality))),
    "brightness": ((2, 5, 10, 30), lambda photo, levels: shifted(photo, [levels] * 3)),
    "colour": ((2, 5, 10, 30), lambda photo, levels: shifted(photo, [levels, 0, -levels])),
    "translation": ((1, 2, 4, 8), lambda photo, pixels: translated(photo, int(pixels))),
}


def with_noise(photo: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, sigma, np.shape(photo))
    return Image.fromarray((np.asarray(photo) + noise).round().clip(0, 255).astype(np.uint8))


def as_jpeg(photo: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def shifted(photo: Image.Image, levels: list[float]) -> Image.Image:
    return Image.fromarray((np.asarray(photo) + np.array(levels)).round().clip(0, 255).astype(np.uint8))


def translated(photo: Image.Image, pixels: int) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(photo), pixels, axis=1))


def crops(photo: Image.Image) -> Tensor:
    """[256, 3, 32, 32]"""
    return to_tensor(photo).unfold(1, 32, 32).unfold(2, 32, 32).permute(1, 2, 0, 3, 4).flatten(0, 1)
