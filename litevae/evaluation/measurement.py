"""One pass of an autoencoder over images of one size: every image is reconstructed once, and only numbers are kept.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevae.data import EvaluationImages, ImageBatch
from litevae.data.evaluation_images import View
from litevae.evaluation.autoencoders import BicubicBaseline, EvaluatedAutoencoder
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.pixels import to_float
from litevae.runs.processes import Processes
from litevae_kernels.files import replacing

ImageMetric = Callable[[Tensor, Tensor], Tensor]
"""(reconstructions, images), [B, 3, H, W] -> [B]"""

SAVE_SECONDS = 300.0


class NotFiniteError(ValueError):
    """A reconstruction that is not finite; no metric of it would mean anything."""


class Measurement:
    """Scores of every image and the set metrics' state, of one process's share until `join`.

    Args:
        images, view, size: which images, and how one is seen: uint8 [3, size, size].
        image_metrics: name -> metric of one image.
        sample_seed: decode samples of the posterior, whose noise is a function of (seed, image); None: its mode.
        key: what a saved state must have been made with to be continued.
    """

    def __init__(
        self,
        model: EvaluatedAutoencoder | BicubicBaseline,
        images: EvaluationImages,
        view: View,
        size: int,
        image_metrics: Mapping[str, ImageMetric],
        set_metrics: Sequence[SetMetric],
        processes: Processes,
        batch_size: int = 1,
        sample_seed: int | None = None,
        key: str = "",
    ) -> None:
        self.model, self.images, self.view, self.size = model, images, view, size
        self.image_metrics, self.set_metrics = image_metrics, set_metrics
        self.processes, self.batch_size, self.sample_seed = processes, batch_size, sample_seed
        self.key = f"{key} {size} {batch_size} {processes.rank}/{processes.world_size}"
        self.batches_done = 0
        self.scores: dict[int, dict[str, float]] = {}
        """Index of an image -> metric -> value."""
        self.names: dict[int, str] = {}
        self.seconds = 0.0

    @property
    def images_done(self) -> int:
        """How many images of this process's share were seen, unusable ones included."""
        return self.batches_done * self.batch_size

    def run(self, state: Path | None = None, should_stop: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Measure what is left, yielding after each batch the number of its images; then `join` the processes.

        Args:
            state: a file where the state is saved now and then, and where a stopped pass goes on from.
            should_stop: asked after every batch; then the state is saved, and the iteration ends.
        """
        saved, clock = time.monotonic(), time.perf_counter()
        processes = self.processes
        share = self.images.batches(self.view, self.batch_size, processes.rank, processes.world_size, self.batches_done)
        for batch in share:
            if batch.indices:
                self._measure(batch)
            self.batches_done += 1
            self.seconds, clock = self.seconds + time.perf_counter() - clock, time.perf_counter()
            if state is not None and (should_stop() or time.monotonic() - saved > SAVE_SECONDS):
                self.save(state)
                saved = time.monotonic()
            yield len(batch.indices)
            if should_stop():
                return

    @torch.no_grad()
    def _measure(self, batch: ImageBatch) -> None:
        images = to_float(batch.pixels.to(self.model.device))  # [B, 3, H, W]
        measured = self.reconstruct(batch.indices, images)
        if not measured.reconstructions.isfinite().all():
            raise NotFiniteError(
                f"the reconstruction of {batch.names[0]} is not finite in {self.model.label}; try --dtype float32"
            )
        values = {name: metric(measured.reconstructions, images) for name, metric in self.image_metrics.items()}
        for place, (index, name) in enumerate(zip(batch.indices, batch.names, strict=True)):
            self.names[index] = name
            self.scores[index] = {metric: value[place].item() for metric, value in values.items()}
        for metric in self.set_metrics:
            seen = measured if metric.most_images is None else below(measured, metric.most_images)
            if seen.indices:
                metric.add(seen)

    def reconstruct(self, indices: tuple[int, ...], images: Tensor) -> Batch:
        """What the model makes of images [B, 3, H, W], float32 in [-1, 1]."""
        model = self.model
        if isinstance(model, BicubicBaseline):
            return Batch(indices, images, model.reconstruct(images))
        posterior = model.encode(images)
        latents = posterior.mean if self.sample_seed is None else posterior.sample(self.sample_seed, indices)
        return Batch(indices, images, model.decode(latents), latents, posterior.mean, posterior.std)

    def save(self, path: Path) -> None:
        """Write the state of this process."""
        self._flush()
        metrics = {metric.name: (metric.sums, metric.kept) for metric in self.set_metrics}
        content = {
            "key": self.key,
            "batches_done": self.batches_done,
            "scores": self.scores,
            "names": self.names,
            "seconds": self.seconds,
            "metrics": metrics,
        }
        with replacing(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: Path) -> bool:
        """Go on from a saved state of the same pass; False, and nothing changes, where there is none."""
        if not path.is_file():
            return False
        try:
            content: dict[str, Any] = torch.load(path, map_location=self.model.device, weights_only=True)
        except Exception:  # a damaged file raises anything; the pass begins anew
            return False
        if content.get("key") != self.key:
            return False
        self.batches_done, self.seconds = content["batches_done"], content["seconds"]
        self.scores, self.names = content["scores"], content["names"]
        for metric in self.set_metrics:
            metric.merge(*content["metrics"][metric.name])
        return True

    def join(self) -> None:
        """Make every process's scores and states those of all images."""
        self._flush()
        processes = self.processes
        if processes.world_size == 1:
            return
        self.scores = {index: score for part in processes.gather(self.scores) for index, score in part.items()}
        self.names = {index: name for part in processes.gather(self.names) for index, name in part.items()}
        self.seconds = max(processes.gather(self.seconds))
        for metric in self.set_metrics:
            # A process that had no image has no sums.
            shapes = {name: (tuple(value.shape), value.dtype) for name, value in metric.sums.items()}
            every = {name: shape for part in processes.gather(shapes) for name, shape in part.items()}
            for name, (shape, dtype) in sorted(every.items()):
                own = metric.sums.get(name, torch.zeros(shape, dtype=dtype))
                metric.sums[name] = processes.total(own)
            others = [part for rank, part in enumerate(processes.gather(metric.kept)) if rank != processes.rank]
            for kept in others:
                metric.merge({}, kept)

    def _flush(self) -> None:
        for metric in self.set_metrics:
            metric.flush()

    def means(self) -> dict[str, float]:
        """Metric -> its mean over images; a ValueError without any."""
        if not self.scores:
            raise ValueError(f"DATA must hold images, got none that can be used in {self.images.name}")
        return {
            name: sum(score[name] for score in self.scores.values()) / len(self.scores) for name in self.image_metrics
        }


def below(batch: Batch, index: int) -> Batch:
    """The images of a batch whose index is below this."""
    places = [place for place, number in enumerate(batch.indices) if number < index]

    def chosen(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[places]

    if len(places) == len(batch.indices):
        return batch
    return Batch(
        tuple(batch.indices[place] for place in places),
        batch.images[places],
        batch.reconstructions[places],
        chosen(batch.latents),
        chosen(batch.means),
        chosen(batch.stds),
    )
