"""How does any image file become RGB pixels? One reader for training, evaluation and reconstruct.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# What Pillow raises on files that are cut off, mislabelled, hostile or in a mode it cannot convert.
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError)


class UnreadableImageError(Exception):
    """An image file that cannot be decoded; the message names the file and the reason, on one line."""


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Decode an image file and turn it into upright 8-bit RGB.

    EXIF rotation is applied; grayscale and palettes are expanded; transparency is laid over white; CMYK, YCbCr, HSV
    are converted; 16-bit gray is divided by 257; float gray in [0, 1] is multiplied by 255. Of several frames the
    first is read.

    Raises:
        UnreadableImageError: no such file, not an image, cut off, too large, or in a form not listed above.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; what it cannot read it raises
            return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise UnreadableImageError(f"no such image: {path}") from None
    except IsADirectoryError:
        raise UnreadableImageError(f"not an image but a folder: {path}") from None
    except _PILLOW_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"cannot read the image {path}: {reason}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to 8-bit RGB; see `read_image`.

    Raises:
        ValueError: integer pixels beyond 16 bits, float pixels beyond [0, 1].
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(image)).convert("RGB")
    if image.has_transparency_data:
        overlay = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), overlay)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> np.ndarray:
    """One channel of 16-bit, 32-bit or float pixels to uint8."""
    pixels = np.asarray(image, dtype=np.float64)
    limit = 1.0 if image.mode == "F" else 65535.0
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= limit):
        raise ValueError(f"{image.mode} pixels must be in [0, {limit:g}], got [{pixels.min():g}, {pixels.max():g}]")
    return np.rint(pixels * (255.0 / limit)).astype(np.uint8)


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image to float32 [3, H, W] in [-1, 1]: x / 127.5 - 1."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))  # [H, W, 3], a copy of its own
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div_(127.5).sub_(1.0)


def to_image(x: Tensor) -> Image.Image:
    """Float [3, H, W] in [-1, 1] (clamped) to an RGB image, rounded to the nearest of the 256 values."""
    pixels = x.detach().float().clamp(-1, 1).add(1.0).mul(127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
