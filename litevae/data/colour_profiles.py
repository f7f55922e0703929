"""Colours: an image with an ICC profile is converted to sRGB, and what is written says that it is sRGB.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

LittleCMS converts (Pillow's ImageCms), relative colorimetric with black point compensation: a colour that sRGB has
stays what it is, one beyond goes to its border, the darkest black of an ink becomes black. An image without an ICC
profile counts as sRGB: PNG's gAMA and cHRM chunks and EXIF's colour space are not read.
"""

import functools
import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from litevae.data.errors import one_line

_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}  # ICC's colour spaces that images come in -> Pillow's modes


class ProfileError(Exception):
    """A profile that cannot be used; the message says why, on one line."""


@dataclass(frozen=True)
class _Conversion:
    transform: ImageCms.ImageCmsTransform
    mode: str
    """Of the images that `transform` takes."""
    is_identity: bool
    """The profile is sRGB, but for one of 256 values: so are the profiles that cameras and editors call sRGB."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An image whose colours are those of an ICC profile, as RGB or RGBA in sRGB; itself if the profile is sRGB.

    Gray of 16 bits, 32 bits or floats is interpolated between the profile's 256 values. Alpha stays as it is.

    Raises:
        ProfileError: the profile is damaged, or of colours that the image does not have.
    """
    conversion = _conversion(profile)
    is_gray = is_wide_gray(image) or image.mode in ("1", "L", "LA", "La")
    if (image.mode == "CMYK") != (conversion.mode == "CMYK") or (conversion.mode == "L" and not is_gray):
        raise ProfileError(f"it is for {conversion.mode} pixels, the image has {image.mode}")
    if conversion.is_identity:
        return image
    alpha = None
    if image.has_transparency_data and not is_wide_gray(image):
        image = image.convert("LA" if is_gray else "RGBA")
        alpha = image.getchannel("A")
    converted = _convert_gray(image, conversion) if is_gray else _apply(conversion, image)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def is_wide_gray(image: Image.Image) -> bool:
    """Whether it is gray of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def gray_levels(image: Image.Image) -> np.ndarray:
    """Wide gray as float64 [H, W] in [0, 255]. A ValueError for gray beyond 16 bits, floats beyond [0, 1]."""
    pixels = np.asarray(image, dtype=np.float64)  # [H, W]
    limit = 1.0 if image.mode == "F" else 65535.0
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= limit):
        raise ValueError(f"{image.mode} pixels must be in [0, {limit:g}], got [{pixels.min():g}, {pixels.max():g}]")
    return pixels * (255.0 / limit)


@functools.cache
def srgb_profile() -> bytes:
    """sRGB as an ICC profile, for `icc_profile=` of `Image.save`. The bytes are the same in every process."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return content[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + content[36:]  # else the date and time of now


@functools.lru_cache(maxsize=64)  # each process has its own; LittleCMS lets threads share a transform
def _conversion(profile: bytes) -> _Conversion:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space not in _MODES:
            raise ProfileError(f"its colours are {space}")
        mode = _MODES[space]
        exact, fast = (_transform(source, mode, flags) for flags in (ImageCms.Flags.NOOPTIMIZE, ImageCms.Flags.NONE))
        colours = _sample(mode)
        converted = np.asarray(ImageCms.applyTransform(colours, exact), dtype=int)  # [1, N, 3]
        # LittleCMS approximates what is not a matrix and three curves, in dark colours badly.
        is_close = np.abs(np.asarray(ImageCms.applyTransform(colours, fast)) - converted).max() <= 1
        is_identity = mode != "CMYK" and np.abs(np.asarray(colours.convert("RGB")) - converted).max() <= 1
    except ProfileError:
        raise
    except Exception as error:  # parsers raise anything on hostile bytes
        raise ProfileError(one_line(error)) from error
    return _Conversion(fast if is_close else exact, mode, bool(is_identity))


def _transform(source: ImageCms.ImageCmsProfile, mode: str, flags: ImageCms.Flags) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags | ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _sample(mode: str) -> Image.Image:
    """Every gray, or the colours of a grid, as an image of one row."""
    levels = np.arange(0, 256, 1 if mode == "L" else 17, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * len(mode), indexing="ij"), -1).reshape(-1)
    return Image.frombytes(mode, (len(levels) ** len(mode), 1), grid.tobytes())


def _apply(conversion: _Conversion, image: Image.Image) -> Image.Image:
    image = image if image.mode == conversion.mode else image.convert(conversion.mode)
    converted = ImageCms.applyTransform(image, conversion.transform)
    assert converted is not None  # None only in place
    return converted


def _convert_gray(image: Image.Image, conversion: _Conversion) -> Image.Image:
    """By a table of the colours of 256 grays, in which gray of more bits lies between two."""
    table = np.asarray(_apply(conversion, Image.fromarray(np.arange(256, dtype=np.uint8)[None])))[0]  # [256, 3]
    if not is_wide_gray(image):
        return Image.fromarray(table[np.asarray(image.convert("L"))])  # [H, W, 3]
    levels = gray_levels(image)  # [H, W]
    channels = [np.rint(np.interp(levels, np.arange(256), table[:, c])).astype(np.uint8) for c in range(3)]
    return Image.fromarray(np.stack(channels, -1))  # [H, W, 3]
