"""The run of a diffusion model: the loop of litevae/runs/loop.py over latents.

image -> [frozen encoder -> latent -> noise -> network -> loss]
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litevae.data import Batches, DataError
from litevae.diffusion.config import DIT_CLASSES, METRICS, DiffusionConfig
from litevae.diffusion.data import DiffusionData
from litevae.diffusion.latents import NO_CLASS, LatentBatch, Latents
from litevae.diffusion.networks import DiffusionNetworks
from litevae.diffusion.noise import noising
from litevae.diffusion.report import DiffusionFolder, conclusion, introduction, write_curves, write_samples
from litevae.diffusion.sample_quality import SampleQuality, other_crops
from litevae.diffusion.sampling import can_fold, draw, pipeline
from litevae.diffusion.update import DiffusionUpdate, gaussian
from litevae.evaluation.autoencoders import EvaluatedAutoencoder, config_of
from litevae.evaluation.weights import WeightSource
from litevae.pixels import to_float
from litevae.runs.checkpoint import Checkpoint, load_newest_checkpoint, load_state
from litevae.runs.config import ConfigError
from litevae.runs.loop import Loop
from litevae.runs.processes import Processes
from litevae.seeds import derive_seed
from litevae.state_hash import state_hash
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import replacing
from litevae_kernels.precision import warn_where_emulated

Load = Callable[[str, str | None], nn.Module]


class DiffusionTrainer(Loop):
    """The diffusion model's kind of run. `load`, which the command sets: (path, subfolder) -> an autoencoder."""

    schema = DiffusionConfig
    folder_type = DiffusionFolder
    learner_names = {"network": "network"}  # noqa: RUF012
    score = "validation_loss"
    lower_is_better = True
    snapshot_keys = ("model", "ema", "optimizer", "scaler", "scale", "of")
    breaks_run = (DataError,)
    config: DiffusionConfig
    folder: DiffusionFolder
    load_autoencoder: Load

    def __init__(self, config: DiffusionConfig, folder: DiffusionFolder, processes: Processes) -> None:
        super().__init__(config, folder, processes)
        self.noticed = False
        """Whether it was said what speaks against the distances."""
        self.latest: Tensor
        """Samples from the noise that every evaluation has, as the last one drew them."""
        try:
            self._open(config, processes)
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(str(error)) from None

    def _open(self, config: DiffusionConfig, processes: Processes) -> None:
        name = str(config.autoencoder.path)
        with processes.local_main_first():
            model = type(self).load_autoencoder(name, config.autoencoder.subfolder)
        self.weights = state_hash(model)
        model.to(processes.device).requires_grad_(False)
        self.autoencoder = EvaluatedAutoencoder(model, name)
        if config.autoencoder.scale == "channel" and not can_fold(model):
            rule = f"be scalar for {name}, whose weights cannot take a scale for each channel"
            raise wrong_value("autoencoder.scale", rule, "channel")
        self.data = DiffusionData(config, self.autoencoder, self.weights)
        size = config.data.crop_size
        side = self.data.shape[2] if self.data.cache is not None else size // self.autoencoder.downsampling
        if self.data.cache is None and size % self.autoencoder.downsampling:
            raise wrong_value("data.crop_size", f"be a multiple of {self.autoencoder.downsampling} for {name}", size)
        config.network.check_latent(side, name if self.data.cache is None else str(config.autoencoder.cache))
        self.side, self.noising = side, noising(config.noise)
        self.networks = DiffusionNetworks(config, self.autoencoder.latent_channels, side, processes)
        self.learners = [self.networks.learner]
        self.quality: SampleQuality | None = None
        if config.sampling.measured_images and processes.is_main:
            metrics = config.sampling.metrics
            self.quality = SampleQuality(metrics, size, processes.device, WeightSource(options=""))
        self._use(*self._scale())

    def _use(self, means: tuple[float, ...], stds: tuple[float, ...]) -> None:
        """Bring latents to this scale."""
        self.latents = Latents(self.autoencoder, means, stds, self.config.autoencoder.sample, self.config.train.seed)
        self.update = DiffusionUpdate(self.config, self.latents, self.noising, self.networks, self.processes)
        self.held_out: LatentBatch | None = None

    def _scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Means and standard deviations by channel: the autoencoder's own, the cache's, or measured.

        Of samples or of means, whichever is trained on; an autoencoder says it of samples.
        """
        told, channels = self.config.autoencoder, self.autoencoder.latent_channels
        own = config_of(self.autoencoder.model)
        if told.sample and told.scale == "scalar" and (own.get("scaling_factor") or 1.0) != 1.0:
            return (own.get("shift_factor") or 0.0,) * channels, (1 / own["scaling_factor"],) * channels
        if told.sample and told.scale == "channel" and own.get("latent_channel_means") is not None:
            return tuple(own["latent_channel_means"]), tuple(own["latent_channel_stds"])
        cache = self.data.cache
        found = self.data.measure(self.autoencoder) if cache is None else cache.index["statistics"]
        means, stds = found["channel_means"], found["channel_stds" if told.sample else "stds_of_means"]
        if told.scale == "channel":
            return tuple(means), tuple(stds)
        middle = sum(means) / channels  # the law of total variance, from channels to all
        variance = sum(std**2 + (mean - middle) ** 2 for mean, std in zip(means, stds, strict=True)) / channels
        return (0.0,) * channels, (variance**0.5,) * channels

    def introduce(self) -> None:
        shape = (self.autoencoder.latent_channels, self.side, self.side)
        self.say(introduction(self.config, self.networks, self.processes, self.data, self.latents, shape, self.step))
        warn_where_emulated(self.config.train.autocast_dtype, self.processes.device.type)

    def open_batches(self) -> Batches:
        processes = self.processes
        pinned = processes.device.type == "cuda"
        return self.data.batches(self.step, processes.rank, processes.world_size, pinned, self.positions or None)

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """Of the averaged weights: held-out loss at every level of noise, a grid of samples, distances."""
        losses = self.validate()
        self.latest = torch.cat([images for _, images in self.draw("grid", self.config.sampling.images)])
        write_samples(self.folder.grids / f"step-{self.step:06d}.png", self.latest)
        mean, distances = sum(losses) / len(losses), self.distances()
        shown = "".join(f"  {name} {distances[name]:.3g}" for name in METRICS if name in distances)
        self.progress.show_score(f"loss {mean:.4f}{shown}")
        return {"step": self.step, "kind": "evaluation", "validation_loss": mean, **distances, "levels": losses}

    def validate(self) -> list[float]:
        """Mean squared errors at `Noising.levels`, always with the same noise."""
        if self.held_out is None:
            self.held_out = self.data.held_out(self.latents)
        latents, labels = self.held_out
        known = torch.where(labels == NO_CLASS, DIT_CLASSES, labels)
        denoiser, losses = self.networks.kept, []
        was_training = denoiser.training
        denoiser.eval()
        for index, level in enumerate(self.noising.levels):
            noise = gaussian(latents, self.config.train.seed, f"validation {index}", range(len(latents)))
            times = torch.full((len(latents),), self.noising.time(level), device=latents.device)
            noisy, target = self.noising.add(latents, noise, times)
            squares = 0.0
            for part in torch.arange(len(latents)).split(self.update.samples):  # as many at once as in training
                with self._autocast():
                    predicted = denoiser(noisy[part], times[part], known[part])
                squares += float((predicted.float() - target[part]).square().sum())
            losses.append(squares / latents.numel())
        denoiser.train(was_training)
        return losses

    def draw(self, what: str, count: int) -> Iterator[tuple[range, Tensor]]:
        """Samples of the averaged weights, as many of each class as there is room for.

        Yields (their numbers, images [B, 3, size, size] on the CPU).

        Args:
            what: their noise is a function of it, the run's seed and their numbers.
        """
        sampling, seed, at_once = self.config.sampling, self.config.train.seed, self.update.samples
        shape, device = (self.autoencoder.latent_channels, self.side, self.side), self.processes.device
        denoiser = self.networks.kept
        was_training = denoiser.training
        denoiser.eval()
        try:
            for first in range(0, count, at_once):  # as many at once as in training
                numbers = range(first, min(first + at_once, count))
                noise = gaussian(torch.empty(len(numbers), *shape, device=device), seed, what, numbers)
                labels = torch.tensor(numbers, device=device) % len(self.data.classes or "1")
                generators = [torch.Generator(device).manual_seed(derive_seed(seed, what, n)) for n in numbers]
                with self._autocast():
                    latents = draw(denoiser, self.noising.scheduler(sampling), sampling, noise, labels, generators)
                yield numbers, torch.cat([self.latents.decode(latent[None]) for latent in latents]).cpu()
        finally:
            denoiser.train(was_training)

    def distances(self) -> dict[str, float]:
        """Between samples and crops of the data: `sampling.metrics`, and of how many; {} where none was asked for."""
        count, quality = self.config.sampling.measured_images, self.quality
        if quality is None:
            return {}
        quality.begin()
        crops, _ = other_crops(self.config, count)
        for numbers, images in self.draw("measured", count):
            quality.add(numbers, torch.stack([next(crops) for _ in numbers]), images)
        values, notices = quality.values()
        for notice in notices if not self.noticed else ():
            warnings.warn(notice, stacklevel=2)
        self.noticed = True
        return {**values, "measured_images": count}

    def write_results(self) -> None:
        write_curves(self.folder)
        crops = None
        if self.data.cache is None:
            crops = to_float(torch.stack(list(other_crops(self.config, self.config.sampling.images)[0])))
        write_samples(self.folder.samples, self.latest, crops)
        classes = self.data.classes if self.config.network.classes else None
        scale = (self.latents.means, self.latents.stds)
        about = (self.networks.kept, self.noising, self.config.sampling, self.autoencoder.model, *scale, classes)
        with replacing(self.folder.model) as temporary:
            pipeline(*about).save_pretrained(temporary)
        self.say(conclusion(self.folder))

    def snapshot(self) -> dict[str, Any]:
        networks, learner = self.networks, self.networks.learner
        return {
            "model": networks.model.state_dict(),
            "ema": None if networks.ema is None else networks.ema.state_dict(),
            "optimizer": learner.optimizer.state_dict(),
            "scaler": learner.scaler.state_dict(),
            "scale": {"means": self.latents.means, "stds": self.latents.stds},
            "of": self._identity(),
        }

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint's numbers are of."""
        told, cache = self.config.autoencoder, self.data.cache
        return {
            "autoencoder.path": self.weights[:19],
            "autoencoder.scale": told.scale,
            "autoencoder.sample": told.sample,
            "autoencoder.cache": None if cache is None else cache.index["content"],
            "data.holdout": None if cache is None else self.config.data.holdout,
            "noise.objective": self.config.noise.objective,
        }

    def _data_identity(self) -> dict[str, Any]:
        """The part that a run that starts from another one may change: its images."""
        return {key: value for key, value in self._identity().items() if key in ("autoencoder.cache", "data.holdout")}

    def _check_identity(self, before: dict[str, Any], where: str) -> None:
        for key, value in self._identity().items():
            if before[key] != value:
                rule = f"be what {where} was trained with, {before[key]}"
                raise ConfigError(str(wrong_value(key, rule, value, "train another model in a new run")))

    def load(self, checkpoint: Checkpoint) -> None:
        where, scale = str(self.folder.checkpoints), checkpoint["scale"]
        self._check_identity(checkpoint["of"], where)
        self._use(scale["means"], scale["stds"])
        self._load_weights(checkpoint, where)
        self.networks.learner.restore(checkpoint["optimizer"], checkpoint["scaler"])

    def start_from(self, path: Path) -> str:
        path = path.expanduser()
        if not (path / "checkpoints").is_dir():
            raise ConfigError(str(wrong_value("train.start_from", "name a diffusion run, with checkpoints", str(path))))
        checkpoint = load_newest_checkpoint(path / "checkpoints", self.snapshot_keys)
        self._check_identity({**checkpoint["of"], **self._data_identity()}, str(path))
        self._use(checkpoint["scale"]["means"], checkpoint["scale"]["stds"])
        self._load_weights(checkpoint, str(path))
        return f"{path} at step {checkpoint['step']}"

    def _load_weights(self, checkpoint: Checkpoint, where: str) -> None:
        model: dict[str, Tensor] = checkpoint["model"]
        load_state(self.networks.model, model, where)
        if self.networks.ema is not None:
            load_state(self.networks.ema, checkpoint["ema"] or model, where, "averaged model")

    def _autocast(self) -> torch.autocast:
        dtype = self.config.train.autocast_dtype
        return torch.autocast(self.processes.device.type, dtype=dtype, enabled=dtype is not None)
