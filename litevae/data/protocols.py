"""How is an image resized and cut before it is measured? Three answers of the field, by name.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

One model's published numbers differ by a factor of two between them, so results name theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from litevae.data.crops import centre_square, resized_size
from litevae.data.images import to_pixels
from litevae_kernels.checks import wrong_value

READING = "8-bit RGB; ICC profiles to sRGB, upright by EXIF, transparency over white"
"""What comes before every protocol (images.py); the tools that they are named after leave profiles and EXIF alone."""


@dataclass(frozen=True)
class Protocol:
    """A way from an RGB image to uint8 [3, size, size]."""

    name: str
    resize: str
    crop: str
    view: Callable[..., Tensor]
    """(image, size)."""


def _ldm(image: Image.Image, size: int) -> Tensor:
    pixels = to_pixels(image)
    width, height = resized_size(image.size, size)
    if (width, height) != image.size:
        resized = F.interpolate(pixels[None].float(), size=(height, width), mode="bilinear", align_corners=False)
        pixels = resized[0].round().to(torch.uint8)
    left, top = (width - size) // 2, (height - size) // 2
    return pixels[:, top : top + size, left : left + size].contiguous()


def _adm(image: Image.Image, size: int) -> Tensor:
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    image = image.resize(resized_size(image.size, size), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return to_pixels(image.crop((left, top, left + size, top + size)))


def _lanczos(image: Image.Image, size: int) -> Tensor:
    return to_pixels(centre_square(image, size))


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "ldm",
            "short side to the size, bilinear between the 4 nearest pixels (no antialiasing), as OpenCV's INTER_LINEAR "
            "in latent-diffusion; to 8 bits, up to one level from OpenCV's fixed-point arithmetic",
            "centre square",
            _ldm,
        ),
        Protocol(
            "adm",
            "halved by 2x2 means while the short side is at least twice the size, then bicubic (antialiased, Pillow), "
            "as center_crop_arr of guided-diffusion",
            "centre square",
            _adm,
        ),
        Protocol(
            "lanczos",
            "short side to the size, Lanczos (antialiased, Pillow), as in training",
            "centre square",
            _lanczos,
        ),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol of this name; a ValueError lists them."""
    if name not in PROTOCOLS:
        raise wrong_value("protocol", f"be {', '.join(PROTOCOLS)}", name)
    return PROTOCOLS[name]
