"""The quality of reconstructions of held-out images, measured alike for a model and for the bicubic baseline.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]

Images come as a stream and are not kept: an `Evaluation` holds their numbers, and the first few images for figures.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from litevae.data import HeldOutImage
from litevae.evaluation.autoencoders import BicubicBaseline
from litevae.evaluation.instruments import SizeInstruments
from litevae.evaluation.metrics import lpips_distance, psnr, ssim
from litevae.evaluation.reconstruction import pad_to_multiple, reconstruct
from litevae.evaluation.set_metric import Batch

KEPT = 16
"""So many images are kept whole, for figures; of all others only the numbers are."""


@dataclass(frozen=True)
class Measured:
    """The result for one held-out image; the latent is None for the baseline, `lpips` where it is not measured."""

    name: str
    original: Tensor
    reconstruction: Tensor
    latent: Tensor | None
    psnr: float
    ssim: float
    lpips: float | None = None


class Evaluation:
    """Numbers of held-out images, their means (each image counts the same), and the first `KEPT` of the images.

    Args:
        images: consumed one by one.
        lpips_name: what LPIPS is called: a random trunk is named.
        method: of a baseline, what it does.
    """

    def __init__(self, images: Iterable[Measured] = (), lpips_name: str = "lpips", method: str = "") -> None:
        self.lpips_name, self.method = lpips_name, method
        self.images: list[Measured] = []
        self.scores: dict[str, dict[str, float]] = {}  # image -> metric -> value, of all images
        self.distances: dict[str, float] = {}
        """Metric of the images as a set -> value."""
        self.notices: list[str] = []
        """What must be said beside `distances`, such as that there are few images."""
        self.count = 0
        self._totals: dict[str, tuple[float, int]] = {}  # metric -> sum, images that have it
        for image in images:
            self.add(image)

    def add(self, image: Measured) -> None:
        """Count one more image."""
        self.count += 1
        lpips = {} if image.lpips is None else {self.lpips_name: image.lpips}
        self.scores[image.name] = {"psnr": image.psnr, "ssim": image.ssim, **lpips}
        self._add_totals({metric: (value, 1) for metric, value in self.scores[image.name].items()})
        if len(self.images) < KEPT:
            self.images.append(image)

    def merge(self, other: "Evaluation") -> None:
        """Take in an evaluation of other images, such as another process's part of them."""
        if other.lpips_name != self.lpips_name:
            raise ValueError(
                f"other.lpips_name must be {self.lpips_name}, got {other.lpips_name}; measure both with one network"
            )
        self.count += other.count
        self.scores |= other.scores
        self._add_totals(other._totals)
        self.images = [*self.images, *other.images][:KEPT]

    def _add_totals(self, totals: Mapping[str, tuple[float, int]]) -> None:
        for metric, (value, images) in totals.items():
            total, count = self._totals.get(metric, (0.0, 0))
            self._totals[metric] = total + value, count + images

    @property
    def means(self) -> dict[str, float]:
        """Metric -> its mean over the images that have it; a ValueError if there is no image."""
        if not self._totals:
            raise ValueError("an evaluation must hold at least one image to have means, got none; add images to it")
        return {metric: total / count for metric, (total, count) in self._totals.items()}

    @property
    def psnr(self) -> float:
        """Mean PSNR in dB."""
        return self.means["psnr"]

    @property
    def ssim(self) -> float:
        """Mean SSIM."""
        return self.means["ssim"]

    @property
    def lpips(self) -> float | None:
        """Mean LPIPS, if it was measured."""
        return self.means.get(self.lpips_name)

    def as_metrics(self, step: int, raw: "Evaluation | None" = None) -> dict[str, Any]:
        """The line of metrics.jsonl. `raw`: of the weights as they are, where this one is of their moving average."""
        raw_means = {} if raw is None else {"raw": {**raw.means, **raw.distances}}
        means = {**self.means, **self.distances}
        return {"step": step, "kind": "evaluation", **means, **raw_means, "images": self.scores}


def evaluate(
    model: nn.Module,
    held_out: Iterable[HeldOutImage],
    device: torch.device,
    lpips: nn.Module | None = None,
    batch_size: int = 1,
    sets: SizeInstruments | None = None,
) -> Evaluation:
    """Reconstruct every held-out image from the mode of its posterior, in float32.

    Sides that `model.downsampling` does not divide are padded, and the reconstruction is cropped back before it is
    measured.

    Args:
        lpips: the LPIPS network of litevae/losses/perceptual.py on `device`, to measure with it too.
        batch_size: at most this many consecutive images of one size are reconstructed at once. A batch is rounded
            otherwise than one image, in the last digits.
        sets: metrics of the images as a set, which have seen none yet; all images must then have one size.
    """

    def measured() -> Iterator[Measured]:
        seen = 0
        for batch in _batches(held_out, batch_size):
            images = torch.stack([item.image for item in batch]).to(device)  # [B, 3, H, W]
            reconstructions, latents = reconstruct(model, images)
            if sets is not None:
                _add_to(sets, seen, images, reconstructions)
            seen += len(batch)
            for item, reconstruction, latent in zip(batch, reconstructions, latents.cpu(), strict=True):
                yield _measure(item, reconstruction, latent.clone(), lpips)

    was_training = model.training
    model.eval()
    with torch.compiler.set_stance("force_eager"):  # code compiled for crops would be compiled anew for every size
        evaluation = Evaluation(measured(), _name(lpips))
    model.train(was_training)
    return _with_distances(evaluation, sets)


def bicubic_baseline(
    held_out: Iterable[HeldOutImage],
    device: torch.device,
    lpips: nn.Module | None = None,
    sets: SizeInstruments | None = None,
    downsampling: int = 8,
) -> Evaluation:
    """The results of a `BicubicBaseline` with the `downsampling` of a model; the others as of `evaluate`."""
    baseline = BicubicBaseline(torch.device("cpu"), downsampling=downsampling)

    def measured() -> Iterator[Measured]:
        for seen, item in enumerate(held_out):
            height, width = item.image.shape[-2:]
            padded = pad_to_multiple(item.image[None], downsampling)
            reconstruction = baseline.reconstruct(padded)[0, :, :height, :width].to(device)  # [3, H, W]
            if sets is not None:
                _add_to(sets, seen, item.image[None].to(device), reconstruction[None])
            yield _measure(item, reconstruction, None, lpips)

    return _with_distances(Evaluation(measured(), _name(lpips), baseline.name), sets)


def _add_to(sets: SizeInstruments, first: int, images: Tensor, reconstructions: Tensor) -> None:
    """`first`: how many images were added before."""
    batch = Batch(tuple(range(first, first + len(images))), images, reconstructions)
    for metric in sets.set_metrics:
        metric.add(batch)


def _with_distances(evaluation: Evaluation, sets: SizeInstruments | None) -> Evaluation:
    if sets is not None:
        evaluation.distances, _, evaluation.notices = sets.set_values()
    return evaluation


def _batches(held_out: Iterable[HeldOutImage], batch_size: int) -> Iterator[list[HeldOutImage]]:
    """Consecutive images of one size, at most `batch_size` of them."""
    batch: list[HeldOutImage] = []
    for item in held_out:
        if batch and (len(batch) == batch_size or item.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _name(lpips: nn.Module | None) -> str:
    return "lpips" if lpips is None else str(lpips.name)


def _measure(item: HeldOutImage, reconstruction: Tensor, latent: Tensor | None, lpips: nn.Module | None) -> Measured:
    on_device = (reconstruction[None], item.image[None].to(reconstruction.device))
    distance = None if lpips is None else lpips_distance(lpips, *on_device).item()
    pair = (reconstruction[None].cpu(), item.image[None])
    return Measured(item.name, item.image, pair[0][0].clone(), latent, psnr(*pair).item(), ssim(*pair).item(), distance)
