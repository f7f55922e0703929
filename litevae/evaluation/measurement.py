"""One pass of an autoencoder over images of one size: every image is reconstructed once, and only numbers are kept.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevae.data import EvaluationImages, ImageBatch
from litevae.data.evaluation_images import View
from litevae.evaluation.autoencoders import BicubicBaseline, EvaluatedAutoencoder
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.losses.weight_files import DAMAGE, reason
from litevae.pixels import to_float
from litevae.runs.checkpoint import SaveError
from litevae.runs.processes import Processes
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import replacing
from litevae_kernels.precision import tf32

ImageMetric = Callable[[Tensor, Tensor], Tensor]
"""(reconstructions, images), [B, 3, H, W] -> [B]"""

SAVE_SECONDS = 300.0


def join_sets(metrics: Sequence[SetMetric], processes: Processes) -> None:
    """Make the state of metrics, in every process, that of the images of all processes."""
    for metric in metrics:
        metric.flush()
        # A process that had no image has no sums.
        shapes = {name: (tuple(value.shape), value.dtype) for name, value in metric.sums.items()}
        every = {name: shape for part in processes.gather(shapes) for name, shape in part.items()}
        for name, (shape, dtype) in sorted(every.items()):
            metric.sums[name] = processes.total(metric.sums.get(name, torch.zeros(shape, dtype=dtype)))
        others = [part for rank, part in enumerate(processes.gather(metric.kept)) if rank != processes.rank]
        for kept in others:
            metric.merge({}, kept)


class NotFiniteError(ValueError):
    """A reconstruction that is not finite; no metric of it would mean anything."""


class Measurement:
    """Scores of every image and the set metrics' state, of one process's share until `join`.

    Args:
        images, view, size: which images, and how one is seen: uint8 [3, size, size].
        image_metrics: name -> metric of one image.
        sample_seed: decode samples of the posterior, whose noise is a function of (seed, image); None: its mode.
        key, references: what a saved state must have been made with to be continued; of which metrics the originals
            were seen in an earlier pass.
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
        references: Sequence[str] = (),
    ) -> None:
        self.model, self.images, self.view, self.size = model, images, view, size
        self.image_metrics, self.set_metrics = image_metrics, set_metrics
        self.processes, self.batch_size, self.sample_seed = processes, batch_size, sample_seed
        self.key, self.references = f"{key} {size}", list(references)
        self.batches_done = 0
        self.scores: dict[int, dict[str, float]] = {}
        """Index of an image -> metric -> value."""
        self.names: dict[int, str] = {}
        self.skipped: Counter[str] = Counter()
        """What was wrong with images that could not be used -> how many."""
        self.seconds = 0.0

    @property
    def images_done(self) -> int:
        """How many images were seen, unusable ones included, if all processes are as far as this one."""
        done = self.batches_done * self.batch_size * self.processes.world_size
        return min(done, len(self.images)) if len(self.images) else done

    def run(self, state: Path | None = None) -> Iterator[int]:
        """Measure what is left, yielding `images_done` after each batch; then `join` the processes.

        The iteration may be left at any batch, and `save` keeps what was measured.

        Args:
            state: a file where the state is saved now and then, should the process be killed.
        """
        saved, clock = time.monotonic(), time.perf_counter()
        processes = self.processes
        share = self.images.batches(self.view, self.batch_size, processes.rank, processes.world_size, self.batches_done)
        for batch in share:
            if batch.indices:
                with tf32(False):  # "float32" is all of its digits
                    self._measure(batch)
            self.skipped.update(skip.kind for skip in batch.skips if not skip.is_used)
            self.batches_done += 1
            self.seconds, clock = self.seconds + time.perf_counter() - clock, time.perf_counter()
            if state is not None and time.monotonic() - saved > SAVE_SECONDS:
                self.save(state)
                saved = time.monotonic()
            yield self.images_done

    @torch.no_grad()
    def _measure(self, batch: ImageBatch) -> None:
        images = to_float(batch.pixels.to(self.model.device))  # [B, 3, H, W]
        measured = reconstruct(self.model, batch.indices, images, self.sample_seed)
        is_finite = measured.reconstructions.isfinite().flatten(1).all(1).tolist()  # [B]
        if not all(is_finite):
            name = batch.names[is_finite.index(False)]
            raise NotFiniteError(
                f"the reconstruction of {name} by {self.model.label} must be finite, got a NaN; try --dtype float32"
            )
        metrics = self.image_metrics.items()
        values = {name: metric(measured.reconstructions, images).tolist() for name, metric in metrics}
        for place, (index, name) in enumerate(zip(batch.indices, batch.names, strict=True)):
            self.names[index] = name
            self.scores[index] = {metric: value[place] for metric, value in values.items()}
        for metric in self.set_metrics:
            seen = measured if metric.most_images is None else below(measured, metric.most_images)
            if seen.indices:
                metric.add(seen)

    def save(self, path: Path) -> None:
        """Write the state of this process; a SaveError where that cannot be done."""
        self._flush()
        metrics = {metric.name: (metric.sums, metric.kept) for metric in self.set_metrics}
        content = {
            "key": self.key,
            "references": self.references,
            "batch_size": self.batch_size,
            "processes": self.processes.world_size,
            "batches_done": self.batches_done,
            "scores": self.scores,
            "names": self.names,
            "skipped": dict(self.skipped),
            "seconds": self.seconds,
            "metrics": metrics,
        }
        try:
            with replacing(path) as temporary:
                torch.save(content, temporary)
        except (OSError, RuntimeError) as error:  # PyTorch's writer turns the system's error into a RuntimeError
            raise SaveError(f"cannot write {path}: {reason(error)}; make room") from error

    def load(self, path: Path) -> bool:
        """Go on from a saved state of the same pass; False, and nothing changes, where there is none.

        Raises:
            ValueError: it was made in other batches, or by other processes, and cannot be divided anew.
        """
        content = read_state(path)
        if content is None or content.get("key") != self.key or content["references"] != self.references:
            return False
        done, before = content["batches_done"], (content["batch_size"], content["processes"])
        now = (self.batch_size, self.processes.world_size)
        if before != now:
            done, rest = divmod(done * before[0], self.batch_size)
            if before[1] != now[1] or now[1] > 1 or rest:
                rule = f"be {before[0]}, and {before[1]} processes, as when {path} was written"
                raise wrong_value("--batch-size", rule, f"{now[0]}, and {now[1]}", "or name another --output")
        self.batches_done, self.seconds = done, content["seconds"]
        self.scores, self.names, self.skipped = content["scores"], content["names"], Counter(content["skipped"])
        for metric in self.set_metrics:
            metric.merge(*content["metrics"][metric.name])
        return True

    def join(self) -> None:
        """Make every process's scores and states those of all images; a ValueError where no image could be used."""
        self._flush()
        if self.processes.world_size > 1:
            self._join()
        if not self.scores:
            raise wrong_value("DATA", "hold images that can be used", self.images.name)

    def _join(self) -> None:
        processes = self.processes
        self.scores = {index: score for part in processes.gather(self.scores) for index, score in part.items()}
        self.names = {index: name for part in processes.gather(self.names) for index, name in part.items()}
        self.skipped = sum(processes.gather(self.skipped), Counter())
        self.seconds = max(processes.gather(self.seconds))
        join_sets(self.set_metrics, processes)

    def _flush(self) -> None:
        for metric in self.set_metrics:
            metric.flush()

    def means(self) -> tuple[dict[str, float], list[str]]:
        """Metric -> its mean over the images where it is finite; what must be said of the others."""
        means, warnings = {}, []
        for name in self.image_metrics:
            values = [score[name] for score in self.scores.values() if math.isfinite(score[name])]
            if len(values) < len(self.scores):
                exact = len(self.scores) - len(values)
                warnings.append(f"{name}: {exact} images without an error have no finite value and are left out")
            if values:
                means[name] = sum(values) / len(values)
        return means, warnings


def read_state(path: Path) -> dict[str, Any] | None:
    """What `Measurement.save` wrote, on the CPU; None where there is nothing, or it is damaged."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, *DAMAGE):
        return None
    return content if "batch_size" in content else None


@torch.no_grad()
def reconstruct(
    model: EvaluatedAutoencoder | BicubicBaseline, indices: tuple[int, ...], images: Tensor, sample_seed: int | None
) -> Batch:
    """What the model makes of images [B, 3, H, W], float32 in [-1, 1]; `sample_seed` as of `Measurement`."""
    if isinstance(model, BicubicBaseline):
        return Batch(indices, images, model.reconstruct(images))
    posterior = model.encode(images)
    latents = posterior.mean if sample_seed is None else posterior.sample(sample_seed, indices)
    return Batch(indices, images, model.decode(latents), latents, posterior.mean, posterior.std)


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
