"""Images to a cache of latents, shard by shard: every shard is written whole or not at all, and none twice.

image -> [DWT -> feature extraction -> aggregation -> latent]
"""

import contextlib
import dataclasses
import functools
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from litevae.data import READING, DataError, open_images, protocol, source_key
from litevae.data.image_sources import SourceSubset
from litevae.data.labels import Labels, read_labels
from litevae.data.streaming import Stream
from litevae.evaluation.autoencoders import EvaluatedAutoencoder, batch_size
from litevae.evaluation.content_hash import ContentHash
from litevae.evaluation.latents import Statistics
from litevae.evaluation.weights import file_hash
from litevae.latent_cache.cache import FORMAT, INDEX, REQUEST, SHARDS, CacheError
from litevae.latent_cache.request import Encode
from litevae.latent_cache.shard import ShardEncoder, joined, read_sums, storage_error
from litevae.runs.processes import Processes
from litevae.runs.run_folder import versions
from litevae.runs.stopping import StopRequest
from litevae.state_hash import state_hash
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import check_folder, remove_leftovers, write_text

Load = Callable[[str, str | None], nn.Module]

MOST_IMAGES, MOST_BYTES = 10_000, 512 * 2**20
"""Of one shard, unless --shard-size says otherwise."""
FEWEST_IMAGES, PARTS = 256, 16
"""A smaller data set is cut into so many shards, which processes share, of no fewer images."""
NOTICE = "stopping after this batch; started again with the same arguments it goes on"


def encode(request: Encode, load: Load, command: Sequence[str]) -> int:
    """Write a cache, or what an interrupted one lacks; returns the exit code.

    Args:
        load: (MODEL, subfolder) -> the autoencoder, in eval mode on the CPU.
        command: what was typed, for the record.

    Raises:
        DataError, CacheError, FileNotFoundError, ValueError: a wrong request.
    """
    if request.device == "cuda" and not torch.cuda.is_available():
        raise wrong_value("--device", "be cpu or auto where torch finds no CUDA GPU", request.device)
    check_folder("--output", request.output)
    processes = Processes(request.device)
    try:
        return _Encoding(request, load, processes).run(command)
    finally:
        processes.end()


class _Encoding:
    def __init__(self, request: Encode, load: Load, processes: Processes) -> None:
        self.request, self.processes = request, processes
        self.images = open_images(request.data, request.images, request.split, request.image_column, request.workers)
        if isinstance(self.images.source, Stream):
            rule = "hold images that can be read in any order"
            raise DataError(f"DATA must {rule}, got {self.images.description}; have them as .tar files on this disk")
        self.source = self.images.source
        self.labels: Labels | None = read_labels(self.source, request.label_column) if request.labels else None
        model = load(request.model, request.subfolder)
        self.weights = state_hash(model)  # as they are stored, whatever the dtype
        nn.Module.to(model, processes.device, getattr(torch, request.dtype))  # diffusers' own would warn of the dtype
        self.model = EvaluatedAutoencoder(model, Path(request.model).expanduser().resolve().name)
        if request.size % self.model.downsampling:
            rule = f"be a multiple of {self.model.downsampling} for {self.model.label}"
            raise wrong_value("--size", rule, request.size)
        side = request.size // self.model.downsampling
        self.shape = (self.model.latent_channels, side, side)
        self.shard_size = request.shard_size or self._shard_size()
        self.shards = range(-(-len(self.source) // self.shard_size))
        self.folder = request.output

    def _shard_size(self) -> int:
        itemsize = getattr(torch, self.request.storage_dtype).itemsize
        a_latent = 2 * int(np.prod(self.shape)) * itemsize * (2 if self.request.flips else 1)
        shared = max(FEWEST_IMAGES, -(-len(self.source) // PARTS))
        return max(1, min(MOST_IMAGES, shared, MOST_BYTES // a_latent))

    def run(self, command: Sequence[str]) -> int:
        """The shards that are missing, then the index."""
        missing, problem = self.processes.gather(self._open(command))[0]
        if problem:
            raise CacheError(problem)
        self._say(self._introduction(missing))
        with StopRequest(NOTICE) as stop:
            own = missing[self.processes.rank :: self.processes.world_size]
            with self._bar(sum(self._images_of(number) for number in missing), missing) as bar:
                for number in own:
                    if stop.requested or not self._write_shard(number, stop, bar):
                        break
            stopped = self.processes.any(stop.requested)
        if stopped:
            self._say(f"stopped   {self.folder} keeps the shards that were finished")
            return stop.exit_code
        if self.processes.is_main:
            self._write_index(command)
        self.processes.wait()
        return 0

    def _open(self, command: Sequence[str]) -> tuple[list[int], str]:
        """The shards that are not there yet, and why nothing can be written, or ""; found by the main process."""
        if not self.processes.is_main:
            return [], ""
        told, path = self._told(), self.folder / REQUEST
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))["key"]
            except (ValueError, KeyError, TypeError):
                return [], f"{path} must be what a cache was told, got a damaged file; delete {self.folder}"
            changed = [key for key in {**before, **told} if before.get(key) != told.get(key)]
            if changed:
                what = f"another {changed[0]} ({before.get(changed[0])}, now {told.get(changed[0])})"
                return [], f"--output must name an empty folder, got {self.folder}, a cache of {what}; name another"
        elif any(place.name != SHARDS for place in self.folder.glob("[!.]*")):
            return [], f"--output must name an empty folder, got {self.folder}, which holds other files; name another"
        (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
        for place in (self.folder, self.folder / SHARDS):
            remove_leftovers(place)
        write_text(path, json.dumps({"key": told, "command": shlex.join(command)}, indent=2) + "\n")
        missing = [number for number in self.shards if not self._is_whole(number)]
        if missing:
            (self.folder / INDEX).unlink(missing_ok=True)
        return missing, ""

    def _is_whole(self, number: int) -> bool:
        """Whether a shard is there as it was written; a damaged one is deleted, to be made again."""
        path = self._path(number)
        try:
            read_sums(path)
        except CacheError:
            path.unlink(missing_ok=True)
            return False
        return True

    def _write_shard(self, number: int, stop: StopRequest, bar: "tqdm[Any]") -> bool:
        """Encode its images and write it; False if that was interrupted."""
        request, first = self.request, number * self.shard_size
        places = np.arange(first, first + self._images_of(number))
        images = dataclasses.replace(self.images, source=SourceSubset(self.source, places))
        view = functools.partial(protocol(request.protocol).view, size=request.size)
        at_once = request.batch_size or batch_size(request.size, self.processes.device)
        shard = ShardEncoder(self.model, first, request.flips, getattr(torch, request.storage_dtype))
        for batch in images.batches(view, at_once):
            if stop.requested:
                return False
            shard.add(batch)
            bar.update(min(at_once, len(places) - batch.number * at_once) * self.processes.world_size)
        labels = None if self.labels is None else torch.from_numpy(self.labels.numbers)
        shard.write(self._path(number), self.shape, labels)
        return True

    def _write_index(self, command: Sequence[str]) -> None:
        """Join the shards: what is written last makes them a cache."""
        shards: list[dict[str, Any]] = []
        parts = []
        seen: Counter[int] = Counter()
        for number in self.shards:
            path = self._path(number)
            found, indices = read_sums(path)
            parts.append(found)
            seen.update(indices)
            file = {"file": f"{SHARDS}/{path.name}", "images": len(indices), "bytes": path.stat().st_size}
            shards.append({**file, "sha256": file_hash(path)})
        request, chosen = self.request, protocol(self.request.protocol)
        statistics, content = Statistics(), ContentHash()
        statistics.sums = content.sums = sums = joined(parts)
        skipped = int(sums["skipped"])
        if len(seen) + skipped != len(self.source) or max(seen.values(), default=1) > 1:
            raise CacheError(f"{self.folder} must have each image once, got others; delete it and encode them again")
        if not seen:
            raise DataError(f"DATA must hold images that can be used, got none in {request.data}")
        index = {
            "format": FORMAT,
            "model": {"name": request.model, **self.model.describe(), "weights": self.weights},
            "data": {"name": request.data, "images": len(self.source), "files": source_key(self.source)},
            "protocol": {"reading": READING, "name": chosen.name, "resize": chosen.resize, "crop": chosen.crop},
            "size": request.size,
            "flips": request.flips,
            "storage_dtype": request.storage_dtype,
            "classes": None if self.labels is None else list(self.labels.classes),
            "images": len(seen),
            "skipped": skipped,
            "content": content.hexdigest(),
            "latent_shape": list(self.shape),
            **statistics.values(),
            "storage_error": storage_error(sums),
            "shards": shards,
            "versions": versions(0, command),
            "date": date.today().isoformat(),
        }
        write_text(self.folder / INDEX, json.dumps(index, indent=2) + "\n")
        size = sum(shard["bytes"] for shard in shards) / 2**20
        self._say(f"written   {self.folder}: {len(seen):,} images, {size:,.1f} MiB, {skipped} left out")

    def _told(self) -> dict[str, Any]:
        """What the latents, and their order in shards, depend on."""
        request = self.request
        return {
            "model": self.weights,
            "dtype": request.dtype,
            "data": source_key(self.source),
            "number of images": len(self.source),
            "classes": None if self.labels is None else self.labels.hexdigest,
            "reading of images": READING,
            "protocol": request.protocol,
            "size": request.size,
            "flips": request.flips,
            "storage dtype": request.storage_dtype,
            "shard size": self.shard_size,
        }

    def _introduction(self, missing: list[int]) -> str:
        labels = "no labels" if self.labels is None else f"{len(self.labels.classes):,} classes"
        channels, height, width = self.shape
        done = len(self.shards) - len(missing)
        going_on = f", {done} of them there already" if done else ""
        return "\n".join(
            [
                f"model     {self.model.label}, {self.model.describe()['class']}, latents {channels}x{height}x{width}",
                f"data      {self.images.description}, {labels}, {self.request.size}x{self.request.size}",
                f"cache     {self.folder}, {len(self.shards):,} shards of {self.shard_size:,}{going_on}",
            ]
        )

    def _images_of(self, number: int) -> int:
        return min(self.shard_size, len(self.source) - number * self.shard_size)

    def _path(self, number: int) -> Path:
        return self.folder / SHARDS / f"{number:05d}.safetensors"

    def _bar(self, total: int, missing: list[int]) -> "tqdm[Any]":
        return tqdm(
            total=total,
            desc="images",
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed} < {remaining}]",
            disable=not self.processes.is_main or not missing,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )

    def _say(self, text: str) -> None:
        if self.processes.is_main:
            with contextlib.suppress(BrokenPipeError):
                print(text, flush=True)
