"""What does the demo show of one photo? Its reconstruction, its latent as colours, the PSNR and the bytes.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> figures
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from litevae.checks import memory_ran_out
from litevae.cost import parameter_count
from litevae.data import UnreadableImageError, read_image, to_tensor
from litevae.data.images import to_image
from litevae.evaluation.figures import latent_to_rgb
from litevae.evaluation.metrics import psnr
from litevae.evaluation.reconstruction import reconstruct

STORED = torch.float16
"""What a latent would be stored in."""


class DemoError(Exception):
    """What the page says instead of a result, in one sentence or two."""


@dataclass(frozen=True)
class Shown:
    """One photo's result."""

    original: Image.Image
    reconstruction: Image.Image
    latent: Image.Image
    """Of the photo's size: the first three channels as red, green and blue, a place a square."""
    psnr: float
    """In dB, of pixels in [-1, 1] before they are rounded to 8 bits."""
    latent_shape: tuple[int, int, int]
    latent_bytes: int
    """As `STORED`."""
    file_bytes: int
    """Of the photo's file."""
    whole_size: tuple[int, int]
    """Width and height of the photo in the file."""

    @property
    def was_shrunk(self) -> bool:
        return self.whole_size != self.original.size

    def facts(self) -> list[tuple[str, str, str]]:
        """What the page lists below the pictures: what, its value, and more about it."""
        width, height = self.original.size
        pixel_bytes, whole = 3 * width * height, " x ".join(map(str, self.whole_size))
        share = f"{self.latent_bytes / pixel_bytes:.1%} of the pixels' bytes"
        whole_note = f"of {whole} pixels, which were shrunk" if self.was_shrunk else ""
        return [
            ("PSNR", f"{self.psnr:.2f} dB", "of the reconstruction"),
            (
                "Latent in float16",
                count_bytes(self.latent_bytes),
                f"{' x '.join(map(str, self.latent_shape))}, {share}",
            ),
            ("Photo's file", count_bytes(self.file_bytes), whole_note or _times(self.file_bytes / self.latent_bytes)),
            ("Pixels at 8 bits", count_bytes(pixel_bytes), f"{width} x {height}"),
        ]


def show(model: Any, path: str | Path, max_side: int) -> Shown:
    """Reconstruct a photo from the mode of its posterior, on the model's device.

    Args:
        model: a LiteVAE or StableDiffusionVAE in eval mode.
        path: an image in any format that `read_image` reads.
        max_side: a photo whose longer side is above this is shrunk to it first.

    Raises:
        DemoError: it cannot be read, or is too large for the memory.
    """
    path = Path(path)
    try:
        image, file_bytes = read_image(path, warn=False), path.stat().st_size
    except (UnreadableImageError, OSError) as error:
        raise DemoError(str(error).replace(str(path), path.name)) from error
    whole_size = image.size
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    original = to_tensor(image)[None]  # [1, 3, H, W]
    try:
        reconstruction, latent = (x.cpu() for x in reconstruct(model, original.to(model.device)))
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        size = f"{image.width} x {image.height}"
        raise DemoError(f"{size} pixels need more memory than there is; drop a smaller photo") from error
    places = to_image(latent_to_rgb(latent[0]))
    factor = model.downsampling
    squares = places.resize((places.width * factor, places.height * factor), Image.Resampling.NEAREST)
    channels, height, width = latent.shape[1:]
    return Shown(
        original=image,
        reconstruction=to_image(reconstruction[0]),
        latent=squares.crop((0, 0, *image.size)),
        psnr=psnr(reconstruction, original).item(),
        latent_shape=(channels, height, width),
        latent_bytes=latent.numel() * STORED.itemsize,
        file_bytes=file_bytes,
        whole_size=whole_size,
    )


def about(model: Any) -> str:
    """The model in one line."""
    encoder = parameter_count(model.encoder, model.quant_conv) / 1e6
    decoder = parameter_count(model.decoder, model.post_quant_conv) / 1e6
    return (
        f"{type(model).__name__}: encoder {encoder:.2f} M parameters, decoder {decoder:.2f} M; latents of "
        f"{model.latent_channels} channels at 1/{model.downsampling} of the size; {model.device}"
    )


def count_bytes(count: int) -> str:
    """In kB or MB of 1,000 bytes, as file managers count."""
    if count < 1_000:
        return f"{count} bytes"
    return f"{count / 1e3:,.1f} kB" if count < 1_000_000 else f"{count / 1e6:,.2f} MB"


def _times(ratio: float) -> str:
    """ "4.1 times the latent", or a share of it where the file is the smaller one."""
    return f"{ratio:.1f} times the latent" if ratio >= 1 else f"{ratio:.2f} of the latent"
