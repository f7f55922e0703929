"""What a diffusion run is trained and validated on: latents of a cache, or of images that are encoded on the fly.

image -> [frozen encoder -> latent]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litevae.data import Batches, DataError, SkipCounts, TrainingData, open_data
from litevae.data.config import DataConfig
from litevae.data.image_sources import FileSource, ImageSource, SourceSubset, find_images
from litevae.data.labels import read_labels
from litevae.data.training_samples import ImageSamples, Samples
from litevae.diffusion.config import DIT_CLASSES, DiffusionConfig
from litevae.diffusion.latents import NO_CLASS, CachedSamples, LatentBatch, Latents
from litevae.evaluation.autoencoders import EvaluatedAutoencoder
from litevae.evaluation.latents import Statistics
from litevae.latent_cache.cache import LatentCache
from litevae.pixels import to_float, to_uint8
from litevae_kernels.checks import wrong_value

MEASURED_CROPS, CROPS_AT_ONCE = 256, 16
"""So many crops give the scale of latents, where nothing else does."""


class DiffusionData:
    """The data of a run.

    Args:
        autoencoder, weights: whose latents, and the hash of its weights.

    Raises:
        CacheError, DataError, FileNotFoundError: there is nothing to train on, or it is of another autoencoder.
    """

    def __init__(self, config: DiffusionConfig, autoencoder: EvaluatedAutoencoder, weights: str) -> None:
        self.config = config
        self.cache: LatentCache | None = None
        self.images: TrainingData | None = None
        self.classes: tuple[str, ...] | None = None
        self.titles: dict[str, int] = {}
        """Of images that are held out of the same source, their classes by name."""
        if config.autoencoder.cache is not None:
            self._open_cache(config.autoencoder.cache, autoencoder, weights)
        else:
            self._open_images()
        if config.network.classes and self.classes is None:
            place = config.autoencoder.cache or config.data.path or config.data.source
            raise wrong_value("network.classes", f"be false for data without classes ({place})", True)
        if self.classes is not None and config.network.classes and len(self.classes) > DIT_CLASSES:
            raise wrong_value("network.classes", f"be of at most {DIT_CLASSES:,}", f"{len(self.classes):,} of the data")

    def _open_cache(self, name: str, autoencoder: EvaluatedAutoencoder, weights: str) -> None:
        cache = LatentCache(Path(name).expanduser())
        cache.check_model(weights, autoencoder.label)
        held_out = min(max(1, round(len(cache) * self.config.data.holdout)), len(cache) - 1)
        if held_out < 1:
            raise DataError(f"the cache {name} must have two latents or more, one of them held out, got {len(cache)}")
        self.entries = len(cache) - held_out
        self.cache, self.classes = cache, cache.classes
        self.skipped = SkipCounts()
        flips, seed = self.config.data.horizontal_flip, self.config.train.seed
        self.samples: Samples = CachedSamples(cache, self.entries, flips, seed)
        self.description = f"{self.entries:,} latents of {name}"
        self.shape = cache.shape

    def _open_images(self) -> None:
        config = self.config
        self.images = open_data(config.data, config.train.seed)
        self.description = f"{self.images.description}, encoded on the fly"
        if config.network.classes and isinstance(self.images.samples, ImageSamples):
            source = self.images.samples.source
            labels = read_labels(source, config.data.label_column)
            if labels is not None:
                self.classes = labels.classes
                self.images.samples = LabelledSamples(self.images.samples, labels.numbers.tolist())
                self.titles = _labels_by_title(source, config.data, labels.classes)

    def batches(self, first_step: int, rank: int, world_size: int, pin_memory: bool, state: Any) -> Batches:
        """From `first_step` to the end of the run; yields LatentBatch, or pixels alone where there are no classes."""
        train = self.config.train
        if self.images is not None:
            return self.images.batches(
                first_step, train.steps, train.batch_size, rank, world_size, pin_memory=pin_memory, state=state
            )
        return Batches(
            self.samples,
            self.skipped,
            steps=range(first_step, train.steps),
            batch_size=train.batch_size,
            rank=rank,
            world_size=world_size,
            workers=0,
            pin_memory=pin_memory,
        )

    def held_out(self, latents: Latents) -> LatentBatch:
        """Latents [N, C, h, w] at unit scale, that are not trained on, and their classes.

        At most `data.evaluation_images`. Images of `data.validation_split` have none.
        """
        most = self.config.data.evaluation_images
        if self.cache is not None:
            entries = [self.cache.read(n) for n in range(self.entries, min(len(self.cache), self.entries + most))]
            contents = [entry.moments[None] for entry in entries]
            labels = [NO_CLASS if entry.label is None else entry.label for entry in entries]
        else:
            assert self.images is not None
            images = list(self.images.held_out)
            contents = [to_uint8(image.image)[None] for image in images]
            labels = [self.titles.get(image.name, NO_CLASS) for image in images]
        device = latents.autoencoder.device
        found = [latents.encode(content.to(device), [n]) for n, content in enumerate(contents)]
        return LatentBatch(torch.cat(found), torch.tensor(labels, device=device))

    def measure(self, autoencoder: EvaluatedAutoencoder) -> dict[str, Any]:
        """The `Statistics` of latents of the run's first crops, as a cache's index has them."""
        assert self.images is not None
        statistics = Statistics()
        for crops in self.images.first_crops(MEASURED_CROPS, CROPS_AT_ONCE):
            pixels: Tensor = crops.content if isinstance(crops, LatentBatch) else crops
            posterior = autoencoder.encode(to_float(pixels.to(autoencoder.device)))
            statistics.add_posteriors(posterior.mean, posterior.std)
        statistics.scale()  # raises for latents that are constant or not finite
        found: dict[str, Any] = statistics.values()[statistics.name]
        return found


def _labels_by_title(trained: ImageSource, config: DataConfig, classes: tuple[str, ...]) -> dict[str, int]:
    """Of held-out images, by their titles: those of `data.validation_path`, or else of what `trained` is a part of."""
    if config.validation_path is not None:
        files = find_images(config.validation_path, "data.validation_path")
        held_out: ImageSource = FileSource(files, config.validation_path)
        names = read_labels(held_out)
        unknown = sorted(set(names.classes) - set(classes)) if names is not None else []
        if unknown:
            rule = f"have only classes of {config.path} in its folders, or none"
            raise wrong_value("data.validation_path", rule, ", ".join(unknown[:8]))
    elif isinstance(trained, SourceSubset):
        held_out = SourceSubset(trained.source, np.setdiff1d(np.arange(len(trained.source)), trained.indices))
        names = read_labels(held_out, config.label_column)
    else:
        return {}
    if names is None:
        return {}
    return {held_out.title(n): classes.index(names.classes[label]) for n, label in enumerate(names.numbers)}


class LabelledSamples(Samples):
    """Crops with the classes of their images.

    Args:
        labels: of each image of `images.source`.
    """

    def __init__(self, images: ImageSamples, labels: Sequence[int]) -> None:
        super().__init__()
        self.images, self.labels = images, labels

    def crop(self, n: int) -> Tensor:
        return self.images.crop(n)

    def batch(self, numbers: Sequence[int]) -> LatentBatch:
        found = [(self.crop(n), self.labels[self.images.latest]) for n in numbers]
        crops, labels = zip(*found, strict=True)
        return LatentBatch(torch.stack(crops), torch.tensor(labels))

    def take_skips(self) -> Any:
        return self.images.take_skips()
