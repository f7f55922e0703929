"""The metrics of an evaluation, ready to measure: networks are loaded once, sums begin anew at each size.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from litevae.data import READING, Protocol
from litevae.evaluation.autoencoders import BicubicBaseline, EvaluatedAutoencoder
from litevae.evaluation.catalogue import METRICS
from litevae.evaluation.content_hash import ContentHash
from litevae.evaluation.dinov2 import build_dinov2
from litevae.evaluation.equivariance import Equivariance
from litevae.evaluation.feature_distances import KID, DinoV2Distance, FrechetFeatureDistance, ImageFeatures
from litevae.evaluation.feature_networks import FeatureNetwork, build_inception
from litevae.evaluation.interpolation_distance import InterpolationDistance
from litevae.evaluation.latents import Statistics
from litevae.evaluation.lpips_networks import build_lpips
from litevae.evaluation.measurement import ImageMetric, Measurement
from litevae.evaluation.metrics import lpips_distance, psnr, ssim
from litevae.evaluation.mmd import MMD, MMDOptions
from litevae.evaluation.set_metric import SetMetric
from litevae.evaluation.spectrum import Spectrum
from litevae.evaluation.teacher import Teacher, TeacherDistance
from litevae.evaluation.wavelet_distance import FWD
from litevae.evaluation.wavelet_distance import check_size as check_packets
from litevae.evaluation.weights import MissingWeightsError, WeightSource, WrongWeightsError
from litevae.losses.perceptual import LpipsLoss
from litevae.losses.weight_files import WeightsError
from litevae_kernels.checks import wrong_value

References = Mapping[str, Mapping[str, Tensor]]
"""Metric -> sums of the originals' features, from an earlier pass."""

MMD_BYTES = 2**30
_OF_INCEPTION = ("rfid", "kid", "ifid")


class Instruments:
    """The metrics that can be had of those asked for.

    Args:
        asked: names of `METRICS`; None: all that can be had, and `unavailable` says why the others cannot. A file of
            wrong weights is an error all the same.
        has_training_latents: whether `at` is given latents of training, for iFID.
        seed: of what is drawn.
        teacher: the model's teacher, or why it cannot be had; None: it has none.
        sampled: whether samples of posteriors are decoded.

    Raises:
        ValueError, WeightsError: one that was asked for by name cannot be had.
    """

    def __init__(
        self,
        asked: tuple[str, ...] | None,
        model: EvaluatedAutoencoder | BicubicBaseline,
        source: WeightSource,
        has_training_latents: bool = False,
        seed: int = 0,
        teacher: Teacher | str | None = None,
        sampled: bool = False,
    ) -> None:
        self.model, self.seed, self.were_asked = model, seed, asked is not None
        self.teacher, self.sampled = teacher, sampled
        self.unavailable: dict[str, str] = {}
        self.without_weights: list[str] = []
        """Those of them whose weights are missing, or a package."""
        self.lpips: dict[str, LpipsLoss] = {}
        self.networks: dict[str, FeatureNetwork] = {}
        """Metric -> the network of its features; one object where they share it."""
        names = []
        has_latents = isinstance(model, EvaluatedAutoencoder)
        suitable = [name for name, metric in METRICS.items() if has_latents or not metric.needs_latents]
        suitable = [name for name in suitable if name != TeacherDistance.name or teacher is not None]
        for name in suitable if asked is None else asked:
            try:
                self._prepare(name, source, has_training_latents)
                names.append(name)
            except (ValueError, WeightsError) as error:
                if asked is not None or isinstance(error, WrongWeightsError):
                    raise
                self.unavailable[name] = str(error)
                if isinstance(error, MissingWeightsError):
                    self.without_weights.append(name)
        self.names = tuple(names)

    def _prepare(self, name: str, source: WeightSource, has_training_latents: bool) -> None:
        """Load what a metric needs."""
        device = self.model.device
        if METRICS[name].needs_latents and isinstance(self.model, BicubicBaseline):
            raise wrong_value("--metrics", f"leave out {name} for {self.model.label}, which has no latents", name)
        if name == "ifid" and not has_training_latents:
            raise wrong_value("--training-data", "name images of the model's training for ifid", None)
        if name == TeacherDistance.name and not isinstance(self.teacher, Teacher):
            rule = f"name the autoencoder whose latents the model makes, for {name}"
            raise wrong_value("--teacher", rule, None, self.teacher or "")
        if name.startswith("lpips"):
            self.lpips[name] = build_lpips(name, source).to(device)
        elif name in _OF_INCEPTION:
            shared = next((self.networks[other] for other in _OF_INCEPTION if other in self.networks), None)
            self.networks[name] = shared or build_inception(name, source).to(device)
        elif name == "fid-dinov2":
            self.networks[name] = build_dinov2(name, source).to(device)

    def label(self, name: str) -> str:
        """What results call a metric: one whose network has random weights is named so."""
        if name in self.lpips:
            return str(self.lpips[name].name)
        return self.networks[name].label(name) if name in self.networks else name

    def protocol(self, images: Protocol) -> dict[str, str]:
        """Every choice that the numbers depend on, in words, by name."""
        choices = {
            "name": images.name,
            "reading": READING,
            "resize": images.resize,
            "crop": images.crop,
            "rounding": "the model is given pixels of 8 bits, p / 127.5 - 1; its results are clamped to [-1, 1]",
            "latent": f"a sample of the posterior, seed {self.seed}" if self.sampled else "the posterior's mode",
        }
        for name in self.names:
            network = self.networks.get(name)
            about = [] if network is None else [network.protocol, f"weights {network.weights_hash[:23]}"]
            choices[self.label(name)] = "; ".join([*about, METRICS[name].protocol])
        if isinstance(self.teacher, Teacher) and TeacherDistance.name in choices:
            choices[TeacherDistance.name] += f"; teacher {self.teacher.name}, weights {self.teacher.weights[:23]}"
        return choices

    def problem(self, name: str, size: int) -> str:
        """Why a metric cannot be measured of images of this size; "" if it can."""
        smallest = self.lpips[name].trunk.architecture.smallest if name in self.lpips else 0
        if size < smallest:
            return f"images must have at least {smallest} pixels a side, got {size}"
        if name == "fwd":
            try:
                check_packets(size, size)
            except ValueError as error:
                return str(error)
        return ""

    def check(self, size: int) -> None:
        """Raise a ValueError for a metric that was asked for by name, and that images of this size cannot have."""
        for name in self.names if self.were_asked else ():
            if problem := self.problem(name, size):
                raise ValueError(f"--sizes {size} cannot have {name}: {problem}; leave one of them out")

    def at(
        self, size: int, training_latents: Tensor | None = None, references: References | None = None
    ) -> "SizeInstruments":
        """The metrics for images of one size, which have seen none yet."""
        return SizeInstruments(self, size, training_latents, references or {})


class SizeInstruments:
    """The metrics for one size; `left_out` says of some why they cannot be measured at it."""

    def __init__(
        self, instruments: Instruments, size: int, training_latents: Tensor | None, references: References
    ) -> None:
        self.instruments, self.size = instruments, size
        self.training_latents, self.references = training_latents, references
        self.left_out: list[str] = []
        self.content = ContentHash()
        self.image_metrics: dict[str, ImageMetric] = {}
        self.set_metrics: list[SetMetric] = [self.content]
        features: dict[int, ImageFeatures] = {}  # of a network, by its identity
        for name in instruments.names:
            if name in instruments.networks:
                network = instruments.networks[name]
                self._add_of_features(name, features.setdefault(id(network), ImageFeatures(network)))
            else:
                self._add(name)

    def _add(self, name: str) -> None:
        instruments, model = self.instruments, self.instruments.model
        problem = instruments.problem(name, self.size)
        if problem:
            self.left_out.append(f"{name}: {problem}")
        elif name in instruments.lpips:
            lpips = instruments.lpips[name]
            self.image_metrics[str(lpips.name)] = functools.partial(lpips_distance, lpips)
        elif name in ("psnr", "ssim"):
            self.image_metrics[name] = {"psnr": psnr, "ssim": ssim}[name]
        elif name == "fwd":
            self.set_metrics.append(FWD())
        else:
            assert isinstance(model, EvaluatedAutoencoder)
            made: dict[str, Callable[[], SetMetric]] = {
                "mmd": lambda: MMD(MMDOptions(images=self._most_latents(model), seed=instruments.seed)),
                "spectrum": Spectrum,
                "equivariance": lambda: Equivariance(model, instruments.seed),
                "statistics": Statistics,
                "teacher-mse": lambda: self._teacher_distance(model),
            }
            self.set_metrics.append(made[name]())

    def _teacher_distance(self, model: EvaluatedAutoencoder) -> TeacherDistance:
        """With PSNR and every LPIPS that was asked for and can be had of these images."""
        instruments = self.instruments
        assert isinstance(instruments.teacher, Teacher)
        metrics: dict[str, ImageMetric] = {"psnr": psnr}
        for name, lpips in instruments.lpips.items():
            if not instruments.problem(name, self.size):
                metrics[str(lpips.name)] = functools.partial(lpips_distance, lpips)
        sample_seed = instruments.seed if instruments.sampled else None
        return TeacherDistance(model, instruments.teacher, self.size, metrics, sample_seed)

    def _most_latents(self, model: EvaluatedAutoencoder) -> int:
        """So many that float64 copies of them stay below `MMD_BYTES`."""
        elements = model.latent_channels * (self.size // model.downsampling) ** 2
        return max(2, min(MMDOptions.images, MMD_BYTES // (8 * elements)))

    def _add_of_features(self, name: str, features: ImageFeatures) -> None:
        reference = self.references.get(name)
        if name == "kid":
            self.set_metrics.append(KID(features))
        elif name == "ifid":
            assert isinstance(self.instruments.model, EvaluatedAutoencoder)
            assert self.training_latents is not None
            about = (features, self.instruments.model, self.training_latents, self.instruments.seed, reference)
            self.set_metrics.append(InterpolationDistance(*about))
        else:
            kind = FrechetFeatureDistance if name == "rfid" else DinoV2Distance
            self.set_metrics.append(kind(features, reference))

    def result(self, measurement: Measurement) -> dict[str, Any]:
        """A size of results.json."""
        (means, exact), (metrics, details, warnings) = measurement.means(), self.set_values()
        return {
            "images": len(measurement.scores),
            "metrics": means | metrics,
            "details": details,
            "warnings": [*exact, *warnings],
            "skipped": dict(measurement.skipped),
            "seconds": round(measurement.seconds, 2),
            "hash": self.content.hexdigest(),
        }

    def set_values(self) -> tuple[dict[str, float], dict[str, Any], list[str]]:
        """Of the metrics of sets: numbers by label, what is more than a number by label, and what must be said."""
        metrics: dict[str, float] = {}
        details: dict[str, Any] = {}
        warnings = list(self.left_out)
        for metric in self.set_metrics:
            if metric is self.content:
                continue
            label = self.instruments.label(metric.name)
            try:
                values = metric.values()
            except ValueError as error:  # too few images
                warnings.append(f"{label}: {error}")
                continue
            warnings += metric.warnings()
            own = values.pop(metric.name)
            if isinstance(own, float):
                metrics[label] = own
                details |= {label: values} if values else {}
            else:
                details[label] = own
        return metrics, details, warnings
