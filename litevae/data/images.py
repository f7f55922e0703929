"""Image files to RGB pixels: one reader for training, evaluation and reconstruction.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import functools
import io
import os
import stat
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from litevae.data.colour_profiles import ProfileError, gray_levels, is_wide_gray, to_srgb
from litevae.data.errors import IGNORED_PROFILE, UnreadableImageError, one_line
from litevae.pixels import to_float, to_uint8

# Formats that Pillow hands to other programs. EPS is dangerous: Ghostscript would run the file as a PostScript program,
# whatever the file's name.
_NOT_PILLOW = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that it decodes by itself."""
    Image.init()
    return tuple(form for form in Image.OPEN if form not in _NOT_PILLOW)


@functools.cache
def readable_endings() -> frozenset[str]:
    """The endings of file names, such as ".jpg", that stand for `readable_formats`."""
    formats = readable_formats()
    return frozenset(ending for ending, form in Image.registered_extensions().items() if form in formats)


def read_image(path: str | os.PathLike[str], warn: bool = True) -> Image.Image:
    """Decode an image file and turn it into upright 8-bit RGB, in sRGB.

    EXIF rotation and an embedded ICC profile (colour_profiles.py) are applied; grayscale and palettes are expanded;
    transparency is laid over white; CMYK, YCbCr, HSV are converted; 16-bit gray is divided by 257; float gray in [0, 1]
    is multiplied by 255. Of several frames the first is read. More than 2 * PIL.Image.MAX_IMAGE_PIXELS (179 million)
    pixels count as a decompression bomb. Pillow's warning above half of that is silenced: there are cameras of 100
    million pixels.

    Args:
        warn: of a profile that cannot be used; its image counts as sRGB.

    Raises:
        UnreadableImageError: no such file, not an image, cut off, too large, or in a form not listed above.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UnreadableImageError(f"no such image: {path}", "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise unreadable(str(path), _reason(error)) from error
    if stat.S_ISDIR(mode):
        raise UnreadableImageError(f"not an image but a folder: {path}", "a folder")
    if not stat.S_ISREG(mode):  # opening a named pipe would block
        raise unreadable(str(path), "not a regular file")
    try:
        with open(path, "rb") as file:
            return _decode(file, str(path), warn)
    except OSError as error:
        raise unreadable(str(path), error.strerror or _reason(error)) from error


def decode_image(content: bytes, name: str, warn: bool = True) -> Image.Image:
    """`read_image` for the content of a file; errors and warnings call it `name`."""
    return _decode(io.BytesIO(content), name, warn)


def _decode(file: IO[bytes], name: str, warn: bool) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; what Pillow cannot read it raises
            with Image.open(file, formats=readable_formats()) as image:
                image.load()
                if not all(image.size):
                    raise ValueError("it has no pixels")
                rgb = to_rgb(_upright(image))
    except Exception as error:  # decoders raise anything on hostile bytes: RuntimeError (AVIF), SyntaxError (PNG) ...
        empty = file.seek(0, os.SEEK_END) == 0
        raise unreadable(name, "the file is empty" if empty else _reason(error)) from error
    if warn and IGNORED_PROFILE in rgb.info:
        warnings.warn(f"ignored ({IGNORED_PROFILE}) {name}: {rgb.info[IGNORED_PROFILE]}", stacklevel=3)
    return rgb


def unreadable(name: str, reason: str) -> UnreadableImageError:
    return UnreadableImageError(f"cannot read the image {name}: {reason}", reason)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own text holds the address of a file object
        return "not an image in a format that Pillow reads"
    return one_line(error)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation; damaged EXIF data are ignored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # metadata parsers raise anything on hostile bytes, as decoders do
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to 8-bit RGB in sRGB; see `read_image`. A ValueError: gray beyond 16 bits, floats beyond [0, 1].

    The ICC profile is `image.info["icc_profile"]`, as Pillow's decoders leave it. The result's `info` is empty, but for
    the reason why a profile was ignored.
    """
    info: dict[str | tuple[int, int], Any] = {}
    if "icc_profile" in image.info:
        try:
            image = to_srgb(image, image.info["icc_profile"] or b"")  # Pillow's decoders leave None of a damaged one
        except ProfileError as error:
            info[IGNORED_PROFILE] = str(error)
    if is_wide_gray(image):
        image = Image.fromarray(np.rint(gray_levels(image)).astype(np.uint8))
    elif image.has_transparency_data:
        overlay = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), overlay)
    rgb = image.convert("RGB")
    rgb.info = info
    return rgb


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image to uint8 [3, H, W], contiguous."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))  # [H, W, 3], a copy
    return pixels.permute(2, 0, 1).contiguous()  # [3, H, W]


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image to float32 [3, H, W] in [-1, 1]: x / 127.5 - 1."""
    return to_float(to_pixels(image))


def to_image(x: Tensor) -> Image.Image:
    """Float [3, H, W] in [-1, 1] (clamped) to an RGB image, rounded to the nearest of the 256 values."""
    return Image.fromarray(to_uint8(x).permute(1, 2, 0).cpu().numpy())
