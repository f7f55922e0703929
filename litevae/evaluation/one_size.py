"""One size of an evaluation: from a saved state, and statistics that were kept, to its part of results.json.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]
"""

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from litevae.data import READING, DataError, EvaluationImages, Protocol
from litevae.evaluation.autoencoders import BicubicBaseline, EvaluatedAutoencoder, batch_size
from litevae.evaluation.evaluation_folder import EvaluationFolder
from litevae.evaluation.feature_distances import FrechetFeatureDistance
from litevae.evaluation.instruments import Instruments, SizeInstruments
from litevae.evaluation.measurement import SAVE_SECONDS, Measurement, read_state
from litevae.evaluation.reference_cache import Reference, ReferenceCache
from litevae.pixels import to_float
from litevae.runs.processes import Processes
from litevae.runs.stopping import StopRequest


@dataclass(frozen=True)
class Setup:
    """What every size of an evaluation is measured with."""

    model: EvaluatedAutoencoder | BicubicBaseline
    images: EvaluationImages
    source_key: str | None
    """Of the images."""
    training: EvaluationImages | None
    """Of the model's training, for iFID."""
    training_key: str | None
    """The `source_key` of these."""
    protocol: Protocol
    instruments: Instruments
    processes: Processes
    cache: ReferenceCache
    batch_size: int | None
    """None: by size and device."""
    sample_seed: int | None
    """None: the posterior's mode is decoded."""


class OneSize:
    """One side of images, in pixels."""

    def __init__(self, setup: Setup, size: int) -> None:
        self.setup, self.size = setup, size
        self.view = functools.partial(setup.protocol.view, size=size)
        self.batch_size = setup.batch_size or batch_size(size, setup.processes.device)

    def measure(self, folder: EvaluationFolder, stop: StopRequest) -> bool:
        """Measure it, and write what was found to the folder; False if that is interrupted, with its state saved.

        Raises:
            ValueError, DataError: no image can be used, or those of training cannot.
        """
        setup = self.setup
        latents = None
        if "ifid" in setup.instruments.names:
            latents = self._training_latents(stop)
            if latents is None:
                return False
        state = folder.state(self.size, setup.processes.rank)
        references = self._references(setup.processes.gather(read_state(state))[0])
        while True:
            sums = {name: reference.sums for name, reference in references.items()}
            instruments = setup.instruments.at(self.size, latents, sums)
            measurement = self._pass(folder, instruments, sorted(references), stop)
            if measurement is None:
                return False
            content = instruments.content.hexdigest()
            stale = [name for name, reference in references.items() if reference.content != content]
            if not stale:
                break
            for name in stale if setup.processes.is_main else ():
                setup.cache.forget(self._description(name))
            references = {}  # the images are not those whose statistics were kept: once more, without
        if setup.processes.is_main:
            self._keep(instruments, references)
            folder.write_size(self.size, instruments.result(measurement), measurement.scores, measurement.names)
        setup.processes.wait()
        return True

    def _pass(
        self, folder: EvaluationFolder, instruments: SizeInstruments, references: list[str], stop: StopRequest
    ) -> Measurement | None:
        """All images once, joined over processes; None if it is interrupted, with its state saved."""
        setup, processes = self.setup, self.setup.processes
        about = (setup.model, setup.images, self.view, self.size, instruments.image_metrics, instruments.set_metrics)
        measurement = Measurement(*about, processes, self.batch_size, setup.sample_seed, references=references)
        state = folder.state(self.size, processes.rank)
        measurement.load(state)
        with self._bar("images", setup.images, measurement.images_done) as bar:
            for done in measurement.run(state):
                bar.update(done - bar.n)
                if stop.requested:
                    break
        if processes.any(stop.requested):
            measurement.save(state)
            return None
        if measurement.seconds > SAVE_SECONDS:  # the last step takes memory and time
            measurement.save(state)
        measurement.join()
        return measurement

    def _training_latents(self, stop: StopRequest) -> Tensor | None:
        """The posteriors' means of images of the model's training, [N, C, h, w]; None if it is interrupted."""
        images, model, processes = self.setup.training, self.setup.model, self.setup.processes
        assert images is not None
        assert isinstance(model, EvaluatedAutoencoder)
        latents: dict[int, Tensor] = {}  # by number of the batch
        with self._bar("training images", images) as bar:
            for batch in images.batches(self.view, self.batch_size, processes.rank, processes.world_size):
                if batch.indices:
                    latents[batch.number] = model.encode(to_float(batch.pixels.to(processes.device))).mean.cpu()
                bar.update(self.batch_size * processes.world_size)
                if stop.requested:
                    break
        if processes.any(stop.requested):
            return None
        found = {number: part for share in processes.gather(latents) for number, part in share.items()}
        if not found:
            raise DataError(f"--training-data must hold images that can be used, got {images.name}")
        return torch.cat([found[number] for number in sorted(found)]).to(processes.device)

    def _bar(self, what: str, images: EvaluationImages, done: int = 0) -> "tqdm[Any]":
        """A progress bar; a log file instead of a terminal gets a line now and then."""
        return tqdm(
            total=len(images) or None,
            initial=done,
            desc=f"{self.size}x{self.size} {what}",
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed} < {remaining}]"
            if len(images)
            else "{desc} {n_fmt} [{elapsed}]",
            disable=not self.setup.processes.is_main,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )

    def _description(self, name: str) -> dict[str, Any]:
        """What the statistics of the originals depend on, for a metric of features."""
        setup, network = self.setup, self.setup.instruments.networks[name]
        return {
            "metric": setup.instruments.label(name),
            "data": setup.source_key,
            "protocol": [READING, setup.protocol.name, setup.protocol.resize, setup.protocol.crop],
            "network": network.protocol,
            "weights": network.weights_hash,
            "images": len(setup.images),
            "size": self.size,
        }

    def _references(self, state: Mapping[str, Any] | None) -> dict[str, Reference]:
        """The statistics of originals that an earlier evaluation kept, where every process finds the same.

        Of an interrupted pass (`state`) those that it was begun with: they may have been kept since.
        """
        found = {}
        for name in self.setup.instruments.networks:
            if name == "kid" or (state is not None and name not in state["references"]):
                continue
            reference = self.setup.cache.load(self._description(name))
            contents = set(self.setup.processes.gather(None if reference is None else reference.content))
            if reference is not None and len(contents) == 1:
                found[name] = reference
        return found

    def _keep(self, instruments: SizeInstruments, known: Mapping[str, Reference]) -> None:
        content = instruments.content.hexdigest()
        for metric in instruments.set_metrics:
            if isinstance(metric, FrechetFeatureDistance) and metric.name not in known:
                self.setup.cache.save(self._description(metric.name), Reference(metric.reference, content))
