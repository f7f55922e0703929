"""How well are held-out images reconstructed? The same measurement for a model and for the bicubic baseline.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.evaluation.metrics import psnr, ssim
from litevae.evaluation.metrics.lpips import lpips_distance
from litevae.reconstruct import pad_to_multiple, reconstruct


@dataclass(frozen=True)
class HeldOutImage:
    """One image that training never sees: float32 [3, H, W] in [-1, 1] on the CPU."""

    name: str
    image: Tensor


@dataclass(frozen=True)
class Measured:
    """What came out for one held-out image; the latent is None for the baseline, `lpips` where it is not measured."""

    name: str
    original: Tensor
    reconstruction: Tensor
    latent: Tensor | None
    psnr: float
    ssim: float
    lpips: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """All held-out images, and the means over them (each image counts the same, whatever its size)."""

    images: list[Measured]
    lpips_name: str = "lpips"
    """What LPIPS is called: a random trunk is named."""

    @property
    def psnr(self) -> float:
        """Mean PSNR in dB."""
        return fmean(image.psnr for image in self.images)

    @property
    def ssim(self) -> float:
        """Mean SSIM."""
        return fmean(image.ssim for image in self.images)

    @property
    def lpips(self) -> float | None:
        """Mean LPIPS, if it was measured."""
        values = [image.lpips for image in self.images if image.lpips is not None]
        return fmean(values) if values else None

    def as_metrics(self, step: int, raw: "Evaluation | None" = None) -> dict[str, Any]:
        """The line of metrics.jsonl. `raw`: of the weights as they are, where this one is of their moving average."""
        images = {image.name: self._named(image) for image in self.images}
        of_raw = {} if raw is None else {"raw": raw._named(raw)}
        return {"step": step, "kind": "evaluation", **self._named(self), **of_raw, "images": images}

    def _named(self, measured: "Measured | Evaluation") -> dict[str, float]:
        lpips = {} if measured.lpips is None else {self.lpips_name: measured.lpips}
        return {"psnr": measured.psnr, "ssim": measured.ssim, **lpips}


def evaluate(
    model: nn.Module, held_out: list[HeldOutImage], device: torch.device, lpips: nn.Module | None = None
) -> Evaluation:
    """Reconstruct every held-out image from the mode of its posterior, in float32, one at a time.

    Sides that 8 does not divide are padded, and the reconstruction is cropped back before it is measured.

    Args:
        lpips: the LPIPS network of litevae/losses/perceptual.py on `device`, to measure with it too.
    """
    was_training = model.training
    model.eval()
    images = []
    with torch.compiler.set_stance("force_eager"):  # code compiled for crops would be compiled anew for every size
        for item in held_out:
            reconstruction, latent = reconstruct(model, item.image.to(device))
            images.append(_measure(item, reconstruction, latent.cpu(), lpips))
    model.train(was_training)
    return Evaluation(images, _name(lpips))


def bicubic_baseline(held_out: list[HeldOutImage], device: torch.device, lpips: nn.Module | None = None) -> Evaluation:
    """The rival without learning: downsample by 8 (bicubic, antialiased), then upsample by 8 (bicubic).

    It keeps three numbers for each 8x8 block, where a LiteVAE latent keeps `latent_channels`.
    """
    images = []
    for item in held_out:
        height, width = item.image.shape[-2:]
        padded = pad_to_multiple(item.image[None])
        small = F.interpolate(padded, scale_factor=1 / 8, mode="bicubic", antialias=True)
        large = F.interpolate(small, size=padded.shape[-2:], mode="bicubic")
        images.append(_measure(item, large[0, :, :height, :width].clamp(-1, 1).to(device), None, lpips))
    return Evaluation(images, _name(lpips))


def _name(lpips: nn.Module | None) -> str:
    return "lpips" if lpips is None else str(lpips.name)


def _measure(item: HeldOutImage, reconstruction: Tensor, latent: Tensor | None, lpips: nn.Module | None) -> Measured:
    on_device = (reconstruction[None], item.image[None].to(reconstruction.device))
    distance = None if lpips is None else lpips_distance(lpips, *on_device).item()
    pair = (reconstruction[None].cpu(), item.image[None])
    return Measured(item.name, item.image, pair[0][0], latent, psnr(*pair).item(), ssim(*pair).item(), distance)
