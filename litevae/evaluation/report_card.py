"""An evaluation from its request to its report: the data, the model, the metrics, a pass for each size, the results.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]
"""

import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from litevae.data import DataError, EvaluationImages, open_images, protocol, source_key
from litevae.evaluation.autoencoders import BICUBIC, BicubicBaseline, EvaluatedAutoencoder, check_size
from litevae.evaluation.evaluation_folder import EvaluationFolder
from litevae.evaluation.feature_distances import FrechetFeatureDistance
from litevae.evaluation.instruments import Instruments, SizeInstruments
from litevae.evaluation.measurement import ImageMetric, Measurement
from litevae.evaluation.reference_cache import Reference, default_cache
from litevae.evaluation.report import (
    check_comparable,
    choose_gallery,
    read_results,
    save_gallery_images,
    write_markdown,
    write_report,
)
from litevae.evaluation.request import Comparison, Request
from litevae.evaluation.set_metric import SetMetric
from litevae.evaluation.weights import WeightSource
from litevae.pixels import to_float
from litevae.runs.processes import Processes
from litevae.runs.run_folder import versions
from litevae.runs.stopping import StopRequest
from litevae_kernels.files import unused

Load = Callable[[str, str | None], nn.Module]

TRAINING_IMAGES = 10_000
"""So many images of training give iFID its latents, at most."""
NOTICE = "stopping after this batch; started again with the same arguments the evaluation goes on"


def evaluate(request: Request, load: Load, command: Sequence[str]) -> int:
    """Measure a model and write the results; returns the exit code.

    Args:
        load: (MODEL, subfolder) -> the autoencoder, in eval mode on the CPU.
        command: what was typed, for the record.

    Raises:
        DataError, FileNotFoundError, ValueError: a wrong request.
    """
    processes = Processes(request.device)
    try:
        return _Evaluation(request, load, processes).run(command)
    finally:
        processes.end()


def compare(request: Comparison) -> int:
    """Results of earlier evaluations in one report; returns the exit code."""
    results = [(path.parent if path.is_file() else path, read_results(path)) for path in request.results]
    check_comparable([one for _, one in results])
    output = unused(request.output or Path("evaluations/comparison"))
    output.mkdir(parents=True, exist_ok=True)
    write_report(output / "report.html", results)
    print(f"written   {output / 'report.html'}")
    return 0


class _Evaluation:
    def __init__(self, request: Request, load: Load, processes: Processes) -> None:
        self.request, self.processes = request, processes
        self.images = self._open_images(request.data, request.images)
        self.model = self._open_model(load, processes.device)
        for size in request.sizes:
            check_size(self.model, size)
        self.protocol = protocol(request.protocol)
        source = WeightSource(request.weights, request.download, request.random_weights)
        has_training = request.training_data is not None
        with processes.local_main_first():  # which downloads
            self.instruments = Instruments(request.metrics, self.model, source, has_training, request.seed)
        self.description = {"name": request.model, **self.model.describe()}
        self.cache = default_cache()

    def _open_images(self, name: str, limit: int | None) -> EvaluationImages:
        return open_images(name, limit, self.request.split, self.request.image_column, self.request.workers)

    def _open_model(self, load: Load, device: torch.device) -> EvaluatedAutoencoder | BicubicBaseline:
        request = self.request
        if request.model == BICUBIC:
            return BicubicBaseline(device)
        model = load(request.model, request.subfolder).to(device, getattr(torch, request.dtype))
        return EvaluatedAutoencoder(model, request.label or Path(request.model).name)

    def run(self, command: Sequence[str]) -> int:
        """Every size, then the results."""
        folder = self._open_folder()
        self._say(self._introduction())
        with StopRequest(NOTICE) as stop:
            for size in self.request.sizes:
                if folder.read_size(size) is None and not self._measure(folder, size, stop):
                    return stop.exit_code
        if self.processes.is_main:
            self._write(folder, command)
        self.processes.wait()
        return 0

    def _open_folder(self) -> EvaluationFolder:
        """The main process opens it, and all use the same."""
        path = None
        if self.processes.is_main:
            default = Path("evaluations", f"{_as_name(self.model.label)}-{_as_name(self.request.data)}")
            path = EvaluationFolder.open(self.request.output, default, self._key()).path
        return EvaluationFolder(self.processes.gather(path)[0])

    def _key(self) -> dict[str, Any]:
        """What the numbers depend on."""
        asked = vars(self.request)
        left_out = ("output", "workers", "device", "download", "weights", "label")
        told = {key: value for key, value in asked.items() if key not in left_out}
        key = {**told, "sizes": list(self.request.sizes), "metrics": list(self.instruments.names)}
        return {**key, "weights": self.description["weights"], "found": self.images.description}

    def _measure(self, folder: EvaluationFolder, size: int, stop: StopRequest) -> bool:
        """One size, from where an interrupted evaluation left it; False if this one is interrupted."""
        latents = None if "ifid" not in self.instruments.names else self._training_latents(size)
        references = self._references(size)
        while True:
            instruments = self.instruments.at(size, latents, {name: one.sums for name, one in references.items()})
            measurement = self._pass(folder, instruments, stop)
            if measurement is None:
                return False
            stale = [name for name, one in references.items() if one.content != instruments.content.hexdigest()]
            if not stale:
                break
            for name in stale:  # the images are not those whose statistics were kept: once more, without
                self.cache.forget(self._reference(name, size))
            references = {}
        if self.processes.is_main:
            self._keep_references(instruments, references)
            folder.write_size(size, instruments.result(measurement), measurement.scores, measurement.names)
        self.processes.wait()
        return True

    def _pass(self, folder: EvaluationFolder, instruments: SizeInstruments, stop: StopRequest) -> Measurement | None:
        """All images once, joined over processes; None if it is interrupted, with its state saved."""
        processes, size = self.processes, instruments.size
        measurement = self._measurement(size, instruments.image_metrics, instruments.set_metrics)
        state = folder.state(size, processes.rank)
        measurement.load(state)
        with tqdm(
            total=len(self.images) // processes.world_size or None,
            initial=measurement.images_done,
            desc=f"{size}x{size}",
            unit=" img",
            disable=not processes.is_main,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        ) as bar:
            for count in measurement.run(state, lambda: stop.requested):
                bar.update(count)
        if processes.any(stop.requested):
            measurement.save(state)
            return None
        measurement.join()
        return measurement

    def _measurement(
        self, size: int, image_metrics: Mapping[str, ImageMetric], set_metrics: Sequence[SetMetric]
    ) -> Measurement:
        request, device = self.request, self.processes.device
        view = functools.partial(self.protocol.view, size=size)
        batch_size = request.batch_size or _batch_size(size, device)
        sample_seed = request.seed if request.sample else None
        metrics = (image_metrics, set_metrics)
        given = sorted(metric.name for metric in set_metrics if getattr(metric, "has_given_reference", False))
        about = (self.model, self.images, view, size, *metrics, self.processes, batch_size, sample_seed)
        return Measurement(*about, key=" ".join(given))

    def _training_latents(self, size: int) -> Tensor:
        """The posteriors' means of images of the model's training, [N, C, h, w], for iFID."""
        request, processes = self.request, self.processes
        assert request.training_data is not None
        assert isinstance(self.model, EvaluatedAutoencoder)
        images = self._open_images(request.training_data, TRAINING_IMAGES)
        view = functools.partial(self.protocol.view, size=size)
        latents = []
        for batch in images.batches(view, _batch_size(size, processes.device), processes.rank, processes.world_size):
            if batch.indices:
                latents.append(self.model.encode(to_float(batch.pixels.to(processes.device))).mean.cpu())
        parts = [part for one in processes.gather(latents) for part in one]
        if not parts:
            raise DataError(f"--training-data must hold images, got none that can be used in {request.training_data}")
        return torch.cat(parts).to(processes.device)

    def _reference(self, name: str, size: int) -> dict[str, Any]:
        """What the statistics of the originals depend on, for a metric of features."""
        network = self.instruments.networks[name]
        return {
            "metric": self.instruments.label(name),
            "data": source_key(self.images.source),
            "protocol": vars(self.protocol) | {"view": None},
            "network": network.protocol,
            "weights": network.weights_hash,
            "images": len(self.images),
            "size": size,
        }

    def _references(self, size: int) -> dict[str, Reference]:
        """The statistics that an earlier evaluation kept, where every process finds them."""
        found = {}
        for name in self.instruments.networks:
            reference = None if name == "kid" else self.cache.load(self._reference(name, size))
            if all(self.processes.gather(reference is not None)):
                assert reference is not None
                found[name] = reference
        return found

    def _keep_references(self, instruments: SizeInstruments, known: Mapping[str, Reference]) -> None:
        content = instruments.content.hexdigest()
        for metric in instruments.set_metrics:
            if isinstance(metric, FrechetFeatureDistance) and metric.name not in known:
                self.cache.save(self._reference(metric.name, instruments.size), Reference(metric.reference, content))

    def _write(self, folder: EvaluationFolder, command: Sequence[str]) -> None:
        """Everything that is read, last of all results.json."""
        sizes = {size: folder.read_size(size) for size in self.request.sizes}
        done = {size: content for size, content in sizes.items() if content is not None}
        results = {
            "format": 1,
            "model": self.description,
            "data": {
                "name": self.request.data,
                "images": min(content["result"]["images"] for content in done.values()),
                "skipped": self.images.skipped.by_kind(),
                "hash": next(reversed(done.values()))["result"]["hash"],
            },
            "protocol": self.instruments.protocol(self.protocol, self.request.sample),
            "sizes": {str(size): content["result"] for size, content in done.items()},
            "unavailable": self.instruments.unavailable,
            "gallery": self._gallery(folder, *max(done.items())),
            "versions": versions(self.request.seed, command),
            "command": list(command),
            "date": date.today().isoformat(),
        }
        folder.write_scores(done)
        write_markdown(folder.markdown, results)
        write_report(folder.report, [(folder.path, results)])
        folder.finish(results)
        self._say(folder.markdown.read_text(encoding="utf-8"))
        self._say(f"written   {folder.path}: report.html, results.json, results.md, scores.csv")

    def _gallery(self, folder: EvaluationFolder, size: int, content: dict[str, Any]) -> list[dict[str, Any]]:
        """The worst, median and best images at a size: they are reconstructed once more."""
        measurement, items = self._measurement(size, {}, []), []
        for chosen in choose_gallery(content["scores"]):
            _, image = self.images.read(chosen.index)
            pixels = self.protocol.view(image, size)[None]  # [1, 3, size, size]
            batch = measurement.reconstruct((chosen.index,), to_float(pixels.to(self.processes.device)))
            latent = None if batch.latents is None else batch.latents[0].cpu()
            pictures = (batch.images[0].cpu(), batch.reconstructions[0].cpu(), latent)
            about = {"name": content["names"][chosen.index], "size": size, "scores": content["scores"][chosen.index]}
            items.append(vars(chosen) | about | save_gallery_images(folder.path, chosen.index, size, *pictures))
        return items

    def _introduction(self) -> str:
        model, request = self.description, self.request
        sizes = ", ".join(f"{size}x{size}" for size in request.sizes)
        lines = [
            f"model     {model['label']}, {model['class']}, {model['dtype']}",
            f"data      {self.images.description}, protocol {request.protocol}, {sizes}",
            f"metrics   {', '.join(self.instruments.names)}",
            *(f"without   {name}: {reason}" for name, reason in self.instruments.unavailable.items()),
        ]
        return "\n".join(lines)

    def _say(self, text: str) -> None:
        if self.processes.is_main:
            print(text, flush=True)


def _as_name(text: str) -> str:
    """The last part of a path or address, as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-.") or "unnamed"


def _batch_size(size: int, device: torch.device) -> int:
    """So many images of 256x256 at once: 16 on a GPU, 4 on a CPU; more of smaller ones."""
    images = (16 if device.type == "cuda" else 4) * 256**2 // size**2
    return max(1, min(64, images))
