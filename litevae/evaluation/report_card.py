"""An evaluation from its request to its report: the data, the model, the metrics, every size, the results.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]
"""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from litevae.data import DataError, EvaluationImages, open_images, protocol, source_key
from litevae.evaluation.autoencoders import BICUBIC, BicubicBaseline, EvaluatedAutoencoder, check_size
from litevae.evaluation.evaluation_folder import EvaluationFolder
from litevae.evaluation.instruments import Instruments
from litevae.evaluation.measurement import reconstruct
from litevae.evaluation.one_size import OneSize, Setup
from litevae.evaluation.reference_cache import default_cache
from litevae.evaluation.report import (
    check_comparable,
    choose_gallery,
    read_results,
    save_gallery_images,
    summary,
    write_markdown,
    write_report,
)
from litevae.evaluation.request import Comparison, Request
from litevae.evaluation.teacher import open_teacher
from litevae.evaluation.weights import WeightSource
from litevae.pixels import to_float
from litevae.runs.processes import Processes
from litevae.runs.run_folder import versions
from litevae.runs.stopping import StopRequest
from litevae.state_hash import state_hash
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import check_folder, unused
from litevae_kernels.precision import tf32

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
        DataError, WeightsError, FileNotFoundError, ValueError: a wrong request.
    """
    if request.device == "cuda" and not torch.cuda.is_available():
        raise wrong_value("--device", "be cpu or auto where torch finds no CUDA GPU", request.device)
    processes = Processes(request.device)
    try:
        return _Evaluation(request, load, processes).run(command)
    finally:
        processes.end()


def compare(request: Comparison) -> int:
    """Results of earlier evaluations in one report; returns the exit code.

    Raises:
        ValueError, FileNotFoundError: one is not there, or was not measured as the first.
    """
    results = [(path if path.is_dir() else path.parent, read_results(path)) for path in request.results]
    check_comparable([one for _, one in results])
    output = request.output or unused(Path("evaluations", "comparison"))
    check_folder("--output", output)
    report = output / "report.html"
    if report.exists():
        raise wrong_value("--output", "name a folder without report.html", str(output), "name another")
    output.mkdir(parents=True, exist_ok=True)
    write_report(report, results)
    print(f"written   {report}")
    return 0


class _Evaluation:
    def __init__(self, request: Request, load: Load, processes: Processes) -> None:
        self.request, self.processes = request, processes
        images = _open_images(request, request.data, request.images, request.split)
        training = _open_training(request)
        self.damaged = images.skipped.by_kind()  # shards
        model = self._open_model(load)
        for size in request.sizes:
            check_size(model, size)
        source = WeightSource(request.weights, request.download, request.random_weights)
        with processes.local_main_first():  # which downloads
            teacher = open_teacher(request, load, model)
            about = (training is not None, request.seed, teacher, request.sample)
            instruments = Instruments(request.metrics, model, source, *about)
        for size in request.sizes:
            instruments.check(size)
        self.description = {"name": request.model, **model.describe(), "weights": self.weights}
        self.setup = Setup(
            model,
            images,
            source_key(images.source),
            training,
            None if training is None else source_key(training.source),
            protocol(request.protocol),
            instruments,
            processes,
            default_cache(),
            request.batch_size,
            request.seed if request.sample else None,
        )

    def _open_model(self, load: Load) -> EvaluatedAutoencoder | BicubicBaseline:
        request, device = self.request, self.processes.device
        self.weights: str | None = None
        if request.model in BICUBIC:
            return BicubicBaseline(device, request.label or request.model, BICUBIC[request.model])
        model = load(request.model, request.subfolder)
        self.weights = state_hash(model)  # as they are stored, whatever the dtype
        # Not model.to: diffusers' would warn of the dtype.
        nn.Module.to(model, device, getattr(torch, request.dtype))
        return EvaluatedAutoencoder(model, request.label or Path(request.model).expanduser().resolve().name)

    def run(self, command: Sequence[str]) -> int:
        """Every size, then the results."""
        record = versions(self.request.seed, command)
        folder = self._open_folder()
        self._say(self._introduction(folder))
        try:
            with StopRequest(NOTICE) as stop:
                for size in self.request.sizes:
                    is_done = self.processes.gather(folder.read_size(size) is not None)[0]
                    if not is_done and not OneSize(self.setup, size).measure(folder, stop):
                        self._say(f"stopped   {folder.path} keeps what was measured")
                        return stop.exit_code
            if self.processes.is_main:
                self._write(folder, record)
            self.processes.wait()
            return 0
        finally:
            if self.processes.is_main:
                folder.discard_unused()

    def _open_folder(self) -> EvaluationFolder:
        """The main process opens it, and all use the same."""
        path, problem = None, ""
        if self.processes.is_main:
            default = Path("evaluations", f"{_as_name(self.setup.model.label)}-{_as_name(self.request.data)}")
            try:
                path = EvaluationFolder.open(self.request.output, default, self._key()).path
            except ValueError as error:
                problem = str(error)
        path, problem = self.processes.gather((path, problem))[0]
        if path is None:
            raise ValueError(problem)
        return EvaluationFolder(path)

    def _key(self) -> dict[str, Any]:
        """What the numbers depend on, but for rounding."""
        left_out = ("output", "workers", "device", "batch_size", "download", "weights", "label")
        told = {key: value for key, value in vars(self.request).items() if key not in left_out}
        lists = {"sizes": list(self.request.sizes), "metrics": list(self.setup.instruments.names)}
        found = {"weights": self.description["weights"], "images found": self.setup.images.description}
        files = {"files": self.setup.source_key, "training files": self.setup.training_key}
        return {**told, **lists, **found, **files}

    def _write(self, folder: EvaluationFolder, record: dict[str, Any]) -> None:
        """Everything that is read, last of all results.json."""
        sizes = {size: folder.read_size(size) for size in self.request.sizes}
        done = {size: content for size, content in sizes.items() if content is not None}
        if len(done) < len(sizes):
            raise OSError(f"{folder.partial} lacks sizes that were measured; was it deleted?")
        largest = done[max(done)]["result"]
        instruments = self.setup.instruments
        results = {
            "format": 1,
            "model": self.description,
            "data": {
                "name": self.request.data,
                "images": largest["images"],
                "skipped": dict(Counter(self.damaged) + Counter(largest["skipped"])),
                "hash": largest["hash"],
            },
            "protocol": self._protocol(),
            "sizes": {str(size): content["result"] for size, content in done.items()},
            "unavailable": instruments.unavailable,
            "gallery": self._gallery(folder, max(done), done[max(done)]),
            "versions": record | {"device": str(self.processes.device), "processes": self.processes.world_size},
            "command": record["command"],
            "date": date.today().isoformat(),
        }
        folder.write_scores(done)
        write_markdown(folder.markdown, results)
        write_report(folder.report, [(folder.path, results)])
        folder.finish(results)
        self._say(f"\n{summary(results)}\n\nwritten   {folder.path}: report.html, results.json, results.md, scores.csv")

    def _protocol(self) -> dict[str, str]:
        setup, ifid = self.setup, self.setup.instruments.label("ifid")
        choices = setup.instruments.protocol(setup.protocol)
        if setup.training is not None and ifid in choices:
            about = f"{setup.training.description} in {self.request.training_data}"
            choices[ifid] += f"; latents of {about}, {setup.training_key}"
        return choices

    def _gallery(self, folder: EvaluationFolder, size: int, content: dict[str, Any]) -> list[dict[str, Any]]:
        """The worst, median and best images at a size: they are reconstructed once more."""
        setup, scores = self.setup, content["scores"]
        if not any(metric.startswith(("psnr", "lpips")) for score in scores.values() for metric in score):
            return []  # nothing says which is better
        chosen, items = {one.index: one for one in choose_gallery(scores)}, {}
        for index, image in setup.images.read(chosen):
            pixels = setup.protocol.view(image, size)[None]  # [1, 3, size, size]
            images = to_float(pixels.to(self.processes.device))
            with tf32(False):  # as they were measured
                batch = reconstruct(setup.model, (index,), images, setup.sample_seed)
            latent = None if batch.latents is None else batch.latents[0].cpu()
            pictures = (batch.images[0].cpu(), batch.reconstructions[0].cpu(), latent)
            about = {"name": content["names"][index], "size": size, "scores": scores[index]}
            items[index] = vars(chosen[index]) | about | save_gallery_images(folder.path, index, size, *pictures)
        return [items[index] for index in chosen]

    def _introduction(self, folder: EvaluationFolder) -> str:
        model, request, instruments = self.description, self.request, self.setup.instruments
        sizes = ", ".join(f"{size}x{size}" for size in request.sizes)
        lines = [
            f"model     {model['label']}, {model['class']}, {model['dtype']}",
            f"data      {self.setup.images.description}, protocol {request.protocol}, {sizes}",
            f"metrics   {', '.join(instruments.names)}",
        ]
        if instruments.without_weights:
            way_out = "--download could not fetch them" if request.download else "--download fetches them"
            without = ", ".join(instruments.without_weights)
            lines.append(f"without   {without}: their weights are missing; {way_out}, results.md names the files")
        going_on = ", which goes on" if folder.has_measured else ""
        return "\n".join([*lines, f"folder    {folder.path}{going_on}"])

    def _say(self, text: str) -> None:
        if self.processes.is_main:
            with contextlib.suppress(BrokenPipeError):  # of `| head`; the results are files
                print(text, flush=True)


def _open_images(request: Request, name: str, limit: int | None, split: str) -> EvaluationImages:
    return open_images(name, limit, split, request.image_column, request.workers)


def _open_training(request: Request) -> EvaluationImages | None:
    if request.training_data is None:
        return None
    try:
        return _open_images(request, request.training_data, TRAINING_IMAGES, "train")
    except DataError as error:
        raise DataError(f"--training-data: {error}") from None


def _as_name(text: str) -> str:
    """The last part of a path or address, as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-.") or "unnamed"
