"""An evaluation from its request to its report: the data, the model, the metrics, a pass for each size, the results.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]
"""

import functools
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from litevae.data import EvaluationImages, open_images, protocol
from litevae.data.images import to_tensor
from litevae.evaluation.autoencoders import BICUBIC, BicubicBaseline, EvaluatedAutoencoder, check_size
from litevae.evaluation.catalogue import Instruments
from litevae.evaluation.evaluation_folder import EvaluationFolder
from litevae.evaluation.measurement import Measurement
from litevae.evaluation.report import choose_gallery, read_results, save_gallery_images, write_markdown, write_report
from litevae.evaluation.request import Comparison, Request
from litevae.pixels import to_float
from litevae.runs.processes import Processes
from litevae.runs.run_folder import versions
from litevae.runs.stopping import StopRequest
from litevae_kernels.files import unused

Load = Callable[[str, str | None], nn.Module]

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
    results = [(path.parent, read_results(path)) for path in request.results]
    output = unused(request.output or Path("evaluations/comparison"))
    output.mkdir(parents=True, exist_ok=True)
    write_report(output / "report.html", results)
    print(f"written   {output / 'report.html'}")
    return 0


class _Evaluation:
    def __init__(self, request: Request, load: Load, processes: Processes) -> None:
        self.request, self.processes, device = request, processes, processes.device
        self.images = open_images(
            request.data, request.images, request.split, request.image_column, request.workers
        )
        self.model = self._open_model(load, device)
        for size in request.sizes:
            check_size(self.model, size)
        self.protocol = protocol(request.protocol)
        self.instruments = Instruments(request, self.model)
        self.description = {"name": request.model, **self.model.describe()}

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
        return {**key, "model_weights": self.instruments.model_hash, "images_found": len(self.images)}

    def _measure(self, folder: EvaluationFolder, size: int, stop: StopRequest) -> bool:
        """One size, from where an interrupted evaluation left it; False if this one is interrupted."""
        processes, view = self.processes, functools.partial(self.protocol.view, size=size)
        sample_seed = self.request.seed if self.request.sample else None
        batch_size = self.request.batch_size or _batch_size(size, processes.device)
        instruments = self.instruments.at(size)
        metrics = (instruments.image_metrics, instruments.set_metrics)
        about = (self.model, self.images, view, size, *metrics, processes, batch_size, sample_seed)
        measurement, state = Measurement(*about), folder.state(size, processes.rank)
        measurement.load(state)
        own = len(self.images) // processes.world_size or None
        with tqdm(
            total=own,
            initial=min(measurement.images_done, own or 0),
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
            return False
        measurement.join()
        if processes.is_main:
            result = instruments.result(measurement)
            folder.write_size(size, result, measurement.scores, measurement.names)
        processes.wait()
        return True

    def _write(self, folder: EvaluationFolder, command: Sequence[str]) -> None:
        """Everything that is read, last of all results.json."""
        sizes = {size: folder.read_size(size) for size in self.request.sizes}
        done = {size: content for size, content in sizes.items() if content is not None}
        results = {
            "format": 1,
            "model": self.description | {"weights": self.instruments.model_hash},
            "data": {
                "name": self.request.data,
                "images": min(content["result"]["images"] for content in done.values()),
                "skipped": self.images.skipped.by_kind(),
                "hash": next(reversed(done.values()))["result"]["hash"],
            },
            "protocol": self.instruments.protocol(self.protocol),
            "sizes": {str(size): content["result"] for size, content in done.items()},
            "unavailable": self.instruments.unavailable,
            "gallery": self._gallery(folder, *max(done.items())),
            "versions": versions(self.request.seed, command),
            "command": list(command),
            "date": date.today().isoformat(),
        }
        folder.write_scores(done, list(self.instruments.image_metrics))
        write_markdown(folder.markdown, results)
        write_report(folder.report, [(folder.path, results)])
        folder.finish(results)
        self._say(folder.markdown.read_text(encoding="utf-8"))
        self._say(f"written   {folder.path}: report.html, results.json, results.md, scores.csv")

    def _gallery(self, folder: EvaluationFolder, size: int, content: dict[str, Any]) -> list[dict[str, Any]]:
        """The worst, median and best images at a size: they are reconstructed once more."""
        about = (self.model, self.images, self.protocol.view, size, {}, [], self.processes)
        measurement = Measurement(*about, sample_seed=self.request.seed if self.request.sample else None)
        items = []
        for choice in choose_gallery(content["scores"]):
            _, image = self.images.read(choice.index)
            pixels = self.protocol.view(image, size)[None]  # [1, 3, size, size]
            batch = measurement.reconstruct((choice.index,), to_float(pixels.to(self.model.device)))
            item = {"name": content["names"][choice.index], "size": size, **vars(choice)}
            latent = None if batch.latents is None else batch.latents[0].cpu()
            items.append(item | save_gallery_images(
                folder.path, size, choice.index, batch.images[0].cpu(), batch.reconstructions[0].cpu(), latent
            ))
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
