"""How good are the student's latents on held-out images, as latents and through the decoder?

image -> teacher's and student's encoder -> latent -> decoder -> [measured]
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from litevae.data import HeldOutImage
from litevae.distillation.losses import kl_per_element
from litevae.distillation.teacher import Teacher
from litevae.evaluation.metrics import psnr
from litevae.evaluation.reconstruction import pad_to_multiple
from litevae.models.hybrid import HybridAutoencoder

KEPT = 8
"""So many images are kept whole, for the picture."""


@dataclass(frozen=True)
class Pair:
    """One held-out image, [3, H, W] in [-1, 1], and what teacher and student make of it, on the CPU."""

    name: str
    original: Tensor
    by_teacher: Tensor
    by_student: Tensor
    teacher_psnr: float
    psnr: float
    psnr_to_teacher: float


class LatentErrors:
    """Sums over images from which errors by channel follow, in float64.

    latent_error: the squared difference of the means over the variance of the teacher's, in all positions of all images
    (0: equal, 1: as good as a constant). cosine: between the means less the teacher's mean of that channel.
    """

    def __init__(self) -> None:
        self.count, self.kl, self.images = 0, 0.0, 0
        self._sums: Tensor | float = 0.0

    def add(self, teacher: Any, student: Any) -> None:
        """One image's posteriors [1, C, h, w]."""
        wanted, got = (posterior.mean[0].double().flatten(1).cpu() for posterior in (teacher, student))  # [C, h * w]
        parts = [wanted, got, wanted.square(), got.square(), wanted * got, (wanted - got).square()]
        self._sums = self._sums + torch.stack([part.sum(1) for part in parts])  # [6, C]
        self.count += wanted.shape[1]
        self.kl += float(kl_per_element(teacher, student))
        self.images += 1

    def values(self) -> dict[str, Any]:
        """Of the channels together and one by one."""
        assert isinstance(self._sums, Tensor)
        wanted, got, wanted_squares, got_squares, products, errors = self._sums / self.count  # [C] each
        variance = wanted_squares - wanted.square()
        deviation = got_squares - 2 * got * wanted + wanted.square()  # of the student's from the teacher's mean
        cosines = (products - got * wanted) / (variance * deviation).sqrt()
        return {
            "latent_error": float(errors.sum() / variance.sum()),
            "latent_errors": (errors / variance).tolist(),
            "cosines": cosines.tolist(),
            "kl": self.kl / self.images,
        }


class Comparison:
    """An evaluation's numbers, means over images, and the first images."""

    def __init__(self) -> None:
        self.latents, self.pairs = LatentErrors(), list[Pair]()
        self.scores: dict[str, dict[str, float]] = {}

    def add(self, pair: Pair) -> None:
        names = ("psnr", "teacher_psnr", "psnr_to_teacher")
        self.scores[pair.name] = {name: getattr(pair, name) for name in names}
        if len(self.pairs) < KEPT:
            self.pairs.append(pair)

    @property
    def means(self) -> dict[str, float]:
        """PSNR in dB of decoder(student) and of decoder(teacher) with the image, and between the two."""
        names = next(iter(self.scores.values()))
        return {name: sum(score[name] for score in self.scores.values()) / len(self.scores) for name in names}

    def as_metrics(self, step: int) -> dict[str, Any]:
        """The line of metrics.jsonl."""
        return {
            "step": step,
            "kind": "evaluation",
            **self.means,
            **self.latents.values(),
            "images": self.scores,
        }


@torch.no_grad()
def compare(
    student: HybridAutoencoder, teacher: Teacher, held_out: Iterable[HeldOutImage], device: torch.device
) -> Comparison:
    """Both autoencoders, in float32, from the modes of their posteriors; sides are padded to multiples of 8."""
    was_training = student.training
    student.eval()
    comparison = Comparison()
    for item in held_out:
        height, width = item.image.shape[-2:]
        image = pad_to_multiple(item.image[None].to(device), 8)
        wanted, got = teacher.posterior(image, exact=True), student.encode(image).latent_dist
        comparison.latents.add(wanted, got)
        by_teacher, by_student = (
            decode(posterior.mean).sample[0, :, :height, :width].float().clamp(-1, 1).cpu()
            for decode, posterior in ((teacher.model.decode, wanted), (student.decode, got))
        )
        pairs = ((by_teacher, item.image), (by_student, item.image), (by_student, by_teacher))
        values = [float(psnr(one[None], two[None])) for one, two in pairs]
        comparison.add(Pair(item.name, item.image, by_teacher, by_student, *values))
    student.train(was_training)
    return comparison
