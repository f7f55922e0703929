"""How far is an encoder from the teacher whose latents it makes, and what does it cost beside the teacher's?

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from litevae.cost import parameter_count, peak_tensor_bytes
from litevae.evaluation.autoencoders import BicubicBaseline, EvaluatedAutoencoder, batch_size, config_of
from litevae.evaluation.latents import check_images, finite, posterior_of
from litevae.evaluation.measurement import ImageMetric
from litevae.evaluation.request import Request
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.state_hash import state_hash
from litevae_kernels.checks import wrong_value

NAME = "teacher-mse"
Load = Callable[[str, str | None], nn.Module]
_OF_CHANNELS = ("squared", "mean", "teacher^2", "student^2", "product", "kl_from_teacher", "kl_to_teacher")
_ROUNDS = 5


@dataclass(frozen=True)
class Teacher:
    """The autoencoder whose latents are to be met."""

    model: EvaluatedAutoencoder
    name: str
    weights: str
    """Their `state_hash`, as they are stored."""


def open_teacher(request: Request, load: Load, student: EvaluatedAutoencoder | BicubicBaseline) -> Teacher | str | None:
    """The teacher; why one that only the model names cannot be had; None where there is none, or nobody asks.

    Args:
        load: (name, subfolder) -> an autoencoder, in eval mode on the CPU.

    Raises:
        FileNotFoundError, ValueError: one that was asked for cannot be had.
    """
    is_asked = request.metrics is not None and NAME in request.metrics
    is_measured = (request.metrics is None or is_asked) and isinstance(student, EvaluatedAutoencoder)
    for option, value in (("--teacher", request.teacher), ("--teacher-subfolder", request.teacher_subfolder)):
        if value is not None and not is_measured:
            rule = f"be left out where {NAME} is not measured"
            raise wrong_value(option, rule, value, f"add {NAME} to --metrics of a model with latents")
    if not is_measured or not isinstance(student, EvaluatedAutoencoder):
        return None
    config = config_of(student.model)
    name, subfolder = request.teacher or config.get("teacher"), request.teacher_subfolder
    if name is None:
        return "its config.json does not name the teacher" if "teacher_class" in config else None
    if request.teacher is None:
        subfolder = subfolder or config.get("teacher_subfolder")
    try:
        return _load_teacher(name, subfolder, load, student)
    except (FileNotFoundError, ValueError) as error:
        if is_asked or request.teacher is not None:
            raise
        return str(error)


def _load_teacher(name: str, subfolder: str | None, load: Load, student: EvaluatedAutoencoder) -> Teacher:
    """On the student's device and in its dtype."""
    try:
        model = load(name, subfolder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--teacher: {error}") from error
    except ValueError as error:
        raise ValueError(f"--teacher: {error}") from error
    weights = state_hash(model)
    nn.Module.to(model, student.device, student.dtype)
    teacher = EvaluatedAutoencoder(model, Path(name).name)
    if (teacher.latent_channels, teacher.downsampling) != (student.latent_channels, student.downsampling):
        rule = f"have latents of {student.latent_channels} channels at 1/{student.downsampling}, as {student.label} has"
        got = f"{teacher.latent_channels} at 1/{teacher.downsampling} of {name}"
        raise wrong_value("--teacher", rule, got)
    return Teacher(teacher, name, weights)


class TeacherDistance(SetMetric):
    """Latents, posteriors and reconstructions of a student beside those of its teacher, of the same images.

    Relative MSE: of the posteriors' means, over the variance of the teacher's within a channel: 0 is the teacher, 1
    what its mean would have. Cosine: of the means of a channel, over all images and places. KL: of the posteriors, in
    nats per latent element, in both directions: from the teacher is KL(teacher || student), the expectation under the
    teacher. Reconstructions: `decode` of the student's latents and of the teacher's, each by its own decoder.

    Args:
        image_metrics: name -> metric of pairs of images [B, 3, H, W] in [-1, 1].
        sample_seed: decode samples, whose noise is the same for both; None: modes.
    """

    name: ClassVar[str] = NAME

    def __init__(
        self,
        student: EvaluatedAutoencoder,
        teacher: Teacher,
        size: int,
        image_metrics: Mapping[str, ImageMetric],
        sample_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.student, self.teacher, self.size = student, teacher, size
        self.image_metrics, self.sample_seed = dict(image_metrics), sample_seed

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        means, stds = posterior_of(batch)
        posterior = self.teacher.model.encode(batch.images)
        latents = posterior.mean if self.sample_seed is None else posterior.sample(self.sample_seed, batch.indices)
        decoded = self.teacher.model.decode(latents)  # [B, 3, H, W]
        self._add_images("to_teacher", batch.reconstructions, decoded)
        self._add_images("of_teacher", decoded, batch.images)
        for values in zip(means.cpu(), stds.cpu(), posterior.mean.cpu(), posterior.std.cpu(), strict=True):
            self._add_latent(*(value.double().flatten(1) for value in values))  # [C, h * w] each

    def _add_latent(self, mean: Tensor, std: Tensor, teacher_mean: Tensor, teacher_std: Tensor) -> None:
        """Of one image, so that how images are split into batches changes no bit."""
        variance, teacher_variance, squared = std.square(), teacher_std.square(), (mean - teacher_mean).square()
        for name, value in {
            "squared": squared,
            "mean": teacher_mean,
            "teacher^2": teacher_mean.square(),
            "student^2": mean.square(),
            "product": mean * teacher_mean,
            "kl_from_teacher": _kl(squared, teacher_variance, variance),
            "kl_to_teacher": _kl(squared, variance, teacher_variance),
        }.items():
            self.accumulate(name, value.sum(1))  # [C]
        self.accumulate("images", torch.tensor(1))
        self.accumulate("elements", torch.tensor(mean.shape[1]))

    def _add_images(self, kind: str, images: Tensor, others: Tensor) -> None:
        for name, metric in self.image_metrics.items():
            values = metric(images, others).double().cpu()  # [B]
            for value in values[values.isfinite()]:  # equal images have no finite PSNR
                self.accumulate(f"{name}_{kind}", torch.stack([value, torch.ones_like(value)]))

    def values(self) -> dict[str, Any]:
        """{"teacher-mse": mean over channels of the relative MSE, and everything beside it, by name}.

        Raises:
            ValueError: no images, or a teacher whose latents are constant.
        """
        check_images(self)
        means = {name: self.sums[name] / self.sums["elements"] for name in _OF_CHANNELS}  # [C] each
        variance = means["teacher^2"] - means["mean"].square()  # [C]
        varies = variance > 1e-12 * means["teacher^2"]
        if not varies.any():
            raise ValueError("the teacher's latents are constant: there is no scale to compare with")
        relative = torch.where(varies, means["squared"] / variance, math.nan)
        cosine = means["product"] / (means["teacher^2"] * means["student^2"]).sqrt()
        scores = [f"{metric}_{kind}" for metric in self.image_metrics for kind in ("to_teacher", "of_teacher")]
        found = {
            self.name: relative[varies].mean().item(),
            "teacher": self.teacher.name,
            "teacher_weights": self.teacher.weights,
            "images": int(self.sums["images"]),
            "cosine": cosine.mean().item(),
            **{name: means[name].mean().item() for name in ("kl_from_teacher", "kl_to_teacher")},
            **{name: self._score(name) for name in scores},
            **encoder_costs({"student": self.student, "teacher": self.teacher.model}, self.size),
            "channel_relative_mse": relative.tolist(),
            "channel_cosine": cosine.tolist(),
            "channel_kl_from_teacher": means["kl_from_teacher"].tolist(),
        }
        return {key: value if key == self.name else finite(value) for key, value in found.items()}

    def _score(self, name: str) -> float | None:
        if name not in self.sums:
            return None
        total, count = self.sums[name].tolist()
        return float(total / count)


def _kl(squared: Tensor, variance: Tensor, other: Tensor) -> Tensor:
    """KL(N(m, variance) || N(m', other)) of every element, from (m - m')^2."""
    return 0.5 * ((squared + variance) / other - 1 - variance.log() + other.log())


@torch.no_grad()
def encoder_costs(models: Mapping[str, EvaluatedAutoencoder], size: int) -> dict[str, dict[str, float]]:
    """What encoding costs, side by side: {cost: {name: value}}.

    encoder_parameters, encoded_images_per_second (the median of rounds in which the models take turns) and
    encoding_memory_mb (2^20 bytes, of all tensors alive at once, weights included, without an operation's own
    workspace), of a batch of random images of this size.
    """
    device = next(iter(models.values())).device
    count = batch_size(size, device)
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for round_number in range(_ROUNDS + 1):
        for name, model in models.items():
            start = _now(device)
            model.encode(images)
            if round_number:  # the first one warms up
                seconds[name].append(_now(device) - start)
    parts = {name: [getattr(model.model, part, None) for part in _ENCODES] for name, model in models.items()}
    memory = {
        name: peak_tensor_bytes(model.encode, images, held=_parameters(parts[name])) for name, model in models.items()
    }
    return {
        "encoder_parameters": {name: parameter_count(*parts[name]) for name in models},
        "encoded_images_per_second": {name: count / statistics.median(took) for name, took in seconds.items()},
        "encoding_memory_mb": {name: used / 2**20 for name, used in memory.items()},
    }


_ENCODES = ("encoder", "quant_conv")


def _parameters(parts: list[nn.Module | None]) -> list[Tensor]:
    return [parameter for part in parts if part is not None for parameter in part.parameters()]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
