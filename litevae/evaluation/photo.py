"""The reconstruction of one photo as a picture file; of a large one strip by strip, as far as the model allows.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> figures
"""

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from litevae.data.colour_profiles import srgb_profile
from litevae.data.images import to_pixels, to_tensor
from litevae.data.strip_files import ENDINGS, write_strips
from litevae.evaluation.autoencoders import diffusers_model
from litevae.evaluation.metrics import psnr
from litevae.evaluation.photo_panels import Panels, latent_rows, side_by_side
from litevae.evaluation.reconstruction import pad_to_multiple, reconstruct
from litevae.models.litevae import LiteVAE
from litevae.models.tiling.large_images import plain
from litevae.models.tiling.layers import unbounded
from litevae.pixels import to_float, to_uint8
from litevae_kernels.files import replacing

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_LONGEST_JPEG = 65500  # pixels of a side, libjpeg's limit
NEEDS = (
    "need much memory and time (the decoder's GroupNorm or attention sees the whole photo); --max-side 2048 "
    "reconstructs a smaller copy, --blend blends tiles"
)
STRIP = 256  # rows of a photo that are encoded at once, a multiple of every model's factor


def check_picture(argument: str, output: Path, photo: Image.Image) -> None:
    """Raise a ValueError where the picture of `photo` is too large for the format that the ending of `output` says, or
    `output` leads to a file with another ending."""
    ending = output.resolve().suffix.lower()
    if ending not in PICTURES:
        raise ValueError(
            f"{argument} must lead to a {' or '.join(PICTURES)}, got {output}, a link to {output.resolve()}"
        )
    panels = Panels(photo.width, photo.height, ("", "", ""))
    longest = max(panels.width, panels.height)
    if ending in (".jpg", ".jpeg") and longest > _LONGEST_JPEG:
        rule = f"be a .png or .tif for a picture with a side of {longest} pixels: a .jpg has at most {_LONGEST_JPEG}"
        raise ValueError(f"{argument} must {rule}; try {output.with_suffix('.png')}")


def write_photo(model: Any, photo: Image.Image, output: Path) -> str:
    """Write original | reconstruction | latent, the reconstruction's PSNR over it; returns what there is to say."""
    original = to_tensor(photo)  # [3, H, W]
    reconstruction, latent = (x.cpu()[0] for x in reconstruct(model, original[None].to(_device(model))))
    decibels = psnr(reconstruction[None], original[None]).item()
    size, shape = ("x".join(map(str, sides)) for sides in (original.shape[:0:-1], latent.shape))  # width first
    captions = (f"original {size}", f"reconstruction {decibels:.2f} dB", f"latent {shape}")
    with replacing(output.resolve()) as temporary:  # what a link leads to
        picture = side_by_side(original, reconstruction, latent, captions, model.downsampling)
        picture.save(temporary, quality=95, icc_profile=srgb_profile())
    return _said(decibels, size, shape, output)


def blend_tiles(model: Any) -> None:
    """Have what `load_model` loads work in tiles that are blended where they must be, which is not exact."""
    if isinstance(model, LiteVAE):
        model.enable_tiling(blend=True)
    else:  # whose tiles have the size that its config calls sample_size, as small as it may be
        vae = diffusers_model(model)
        vae.tile_latent_min_size, vae.tile_sample_min_size = 64, 64 * model.downsampling
        vae.enable_tiling()


def streams(model: Any) -> bool:
    """Whether `write_large_photo` takes this model: a LiteVAE whose decoder works by rows."""
    return isinstance(model, LiteVAE) and not unbounded(plain(model.decoder))


def write_large_photo(model: LiteVAE, photo: Image.Image, output: Path) -> str:
    """The same by strips of rows with a progress bar, for a model that `streams`.

    The memory does not grow with the photo's height but for its pixels and its latent; an encoder that sees the whole
    image takes it whole, and a .jpg is collected in memory. The caption has no PSNR, which is known at the end alone.
    """
    latent = _encode(model, photo)  # [1, C, h, w]
    size, shape = f"{photo.width}x{photo.height}", "x".join(map(str, latent.shape[1:]))
    panels = Panels(photo.width, photo.height, (f"original {size}", "reconstruction", f"latent {shape}"))
    colours = latent_rows(latent[0].float().cpu(), model.architecture.downsampling, photo.width)
    squares = [0.0]

    def strips() -> Iterator[np.ndarray]:
        yield panels.head()
        row = 0
        for decoded in _bar(model.decode_rows(latent), "decoding", photo.height):
            last = min(row + decoded.shape[2], photo.height)
            shown = decoded[0, :, : last - row, : photo.width].float().clamp(-1, 1).cpu()
            original = to_pixels(photo.crop((0, row, photo.width, last)))
            squares[0] += (shown.double() - to_float(original, torch.float64)).square().sum().item()
            images = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in (original, to_uint8(shown))]
            yield panels.beside([*images, colours(row, last)])
            row = last
        yield panels.foot()

    with replacing(output.resolve()) as temporary:
        if temporary.suffix.lower() in ENDINGS:
            write_strips(temporary, strips(), panels.width, panels.height)
        else:
            picture = Image.fromarray(np.concatenate(list(strips())))
            picture.save(temporary, quality=95, icc_profile=srgb_profile())
    mean = squares[0] / (3 * photo.width * photo.height)
    return _said(10 * math.log10(4 / mean) if mean else math.inf, size, shape, output)


@torch.no_grad()
def _encode(model: LiteVAE, photo: Image.Image) -> Tensor:
    """The mode of the posterior, [1, C, h, w]."""
    multiple = model.architecture.downsampling
    if unbounded(plain(model.encoder)):
        image = pad_to_multiple(to_tensor(photo)[None].to(_device(model)), multiple)
        posterior: Any = model.encode(image)
        return posterior.latent_dist.mode()
    height = -(-photo.height // multiple) * multiple
    strips = _bar(_strips(photo, multiple, _device(model)), "encoding", height)
    return torch.cat([strip.mode() for strip in model.encode_rows(strips, height=height)], dim=2)


def _strips(photo: Image.Image, multiple: int, device: torch.device) -> Iterator[Tensor]:
    """float32 [1, 3, n, W] in [-1, 1], the photo padded as `pad_to_multiple` does."""
    for row in range(0, photo.height, STRIP):
        last = min(row + STRIP, photo.height)
        strip = to_float(to_pixels(photo.crop((0, row, photo.width, last))))[None].to(device)
        padding = (0, -photo.width % multiple, 0, -last % multiple if last == photo.height else 0)
        yield F.pad(strip, padding, mode="replicate")


def _bar(strips: Iterable[Tensor], what: str, rows: int) -> Iterator[Tensor]:
    bar_format = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} rows [{elapsed} < {remaining}]"
    interval = 0.2 if sys.stderr.isatty() else 10.0
    with tqdm(total=rows, desc=what, bar_format=bar_format, dynamic_ncols=True, mininterval=interval) as bar:
        for strip in strips:
            yield strip
            bar.update(min(strip.shape[2], rows - bar.n))


def _device(model: Any) -> torch.device:
    parameter: Tensor = next(model.parameters())
    return parameter.device


def _said(decibels: float, size: str, shape: str, output: Path) -> str:
    return f"PSNR {decibels:.2f} dB, {size} pixels, latent {shape}: {output}"
