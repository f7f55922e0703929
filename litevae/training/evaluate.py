"""How well are held-out images reconstructed? The same measurement for a model and for the bicubic baseline.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.metrics import psnr, ssim
from litevae.reconstruct import pad_to_multiple, reconstruct


@dataclass(frozen=True)
class HeldOutImage:
    """One image that training never sees: float32 [3, H, W] in [-1, 1] on the CPU."""

    name: str
    image: Tensor


@dataclass(frozen=True)
class Measured:
    """What came out for one held-out image; the latent is None for the baseline."""

    name: str
    original: Tensor
    reconstruction: Tensor
    latent: Tensor | None
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Evaluation:
    """All held-out images, and the means over them (each image counts the same, whatever its size)."""

    images: list[Measured]

    @property
    def psnr(self) -> float:
        """Mean PSNR in dB."""
        return fmean(image.psnr for image in self.images)

    @property
    def ssim(self) -> float:
        """Mean SSIM."""
        return fmean(image.ssim for image in self.images)

    def as_metrics(self, step: int) -> dict[str, object]:
        """The line of metrics.jsonl."""
        images = {image.name: {"psnr": image.psnr, "ssim": image.ssim} for image in self.images}
        return {"step": step, "kind": "evaluation", "psnr": self.psnr, "ssim": self.ssim, "images": images}


def evaluate(model: nn.Module, held_out: list[HeldOutImage], device: torch.device) -> Evaluation:
    """Reconstruct every held-out image from the mode of its posterior, in float32, one at a time.

    Sides that 8 does not divide are padded, and the reconstruction is cropped back before it is measured.
    """
    was_training = model.training
    model.eval()
    images = []
    for item in held_out:
        reconstruction, latent = reconstruct(model, item.image.to(device))
        images.append(_measure(item, reconstruction.cpu(), latent.cpu()))
    model.train(was_training)
    return Evaluation(images)


def bicubic_baseline(held_out: list[HeldOutImage]) -> Evaluation:
    """The rival without learning: downsample by 8 (bicubic, antialiased), then upsample by 8 (bicubic).

    It keeps three numbers for each 8x8 block, where a LiteVAE latent keeps `latent_channels`.
    """
    images = []
    for item in held_out:
        height, width = item.image.shape[-2:]
        padded = pad_to_multiple(item.image[None])
        small = F.interpolate(padded, scale_factor=1 / 8, mode="bicubic", antialias=True)
        large = F.interpolate(small, size=padded.shape[-2:], mode="bicubic")
        images.append(_measure(item, large[0, :, :height, :width].clamp(-1, 1), None))
    return Evaluation(images)


def _measure(item: HeldOutImage, reconstruction: Tensor, latent: Tensor | None) -> Measured:
    pair = (reconstruction[None], item.image[None])
    return Measured(item.name, item.image, reconstruction, latent, psnr(*pair).item(), ssim(*pair).item())
