"""The images of an evaluation: all of a source or the first few, in one order, in batches that processes share.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from litevae.data import streaming
from litevae.data.batches import start_worker, unchanged
from litevae.data.config import DataConfig
from litevae.data.errors import DataError, Skip, SkipCounts, read_or_skip
from litevae.data.image_sources import (
    BUILT_IN_HELD_OUT,
    FileSource,
    ImageSource,
    SourceSubset,
    built_in_paths,
    find_images,
)
from litevae.data.images import readable_endings
from litevae.data.split import evaluation_order

PHOTOGRAPHS = "photographs"

View = Callable[[Image.Image], Tensor]


class ImageBatch(NamedTuple):
    """Consecutive images; those that cannot be used are left out."""

    number: int
    """Batch `number` holds images number * batch_size and up."""
    indices: tuple[int, ...]
    names: tuple[str, ...]
    pixels: Tensor
    """uint8 [B, 3, size, size]; B may be 0."""
    skips: tuple[Skip, ...]
    """What was wrong with those that were left out, and with colour profiles."""


@dataclass(frozen=True)
class EvaluationImages:
    """What `open_images` returns."""

    name: str
    """As it was asked for."""
    description: str
    """Such as "50,000 images"."""
    source: ImageSource | streaming.Stream
    limit: int | None
    """At most so many images of a stream; of a list the source is cut already."""
    skipped: SkipCounts
    """Of shards when they were opened, and of the batches of this process."""
    workers: int

    def __len__(self) -> int:
        """How many images there are, unusable ones included; of a stream `limit`, or 0 where that is not known."""
        return (self.limit or 0) if isinstance(self.source, streaming.Stream) else len(self.source)

    def batches(
        self, view: View, batch_size: int, rank: int = 0, world_size: int = 1, first: int = 0
    ) -> Iterator[ImageBatch]:
        """The batches `rank`, `rank` + `world_size` ... of all, without the first `first` of these.

        Args:
            view: an image as it is measured, uint8 [3, size, size]; called in worker processes.
        """
        if isinstance(self.source, streaming.Stream):
            batches = self._stream_batches(view, batch_size, rank, world_size, first)
        else:
            batches = self._listed_batches(view, batch_size, rank, world_size, first)
        for batch in batches:
            for skip in batch.skips:
                self.skipped.add(skip)
            yield batch

    def read(self, indices: Collection[int]) -> Iterator[tuple[int, Image.Image]]:
        """(index, image) of some that could be used; a stream is read once, up to the last of them."""
        if not isinstance(self.source, streaming.Stream):
            yield from ((index, self.source.read(index)) for index in indices)
            return
        for index, example in enumerate(
            itertools.islice(streaming.examples(self.source), max(indices, default=-1) + 1)
        ):
            if index in indices:
                yield index, example.decode()

    def _listed_batches(
        self, view: View, batch_size: int, rank: int, world_size: int, first: int
    ) -> Iterator[ImageBatch]:
        """Prepared ahead by worker processes."""
        assert not isinstance(self.source, streaming.Stream)
        numbers = range(rank + first * world_size, -(-len(self.source) // batch_size), world_size)
        closing = RawValue("b", 0)
        loader: DataLoader[ImageBatch] = DataLoader(
            _BatchDataset(self.source, view, batch_size),
            batch_size=None,
            sampler=numbers,
            num_workers=min(self.workers, len(numbers)),
            collate_fn=unchanged,
            worker_init_fn=functools.partial(start_worker, closing),
            generator=torch.Generator(),  # the default one would draw from torch's global generator
        )
        try:
            yield from loader
        finally:
            closing.value = 1

    def _stream_batches(
        self, view: View, batch_size: int, rank: int, world_size: int, first: int
    ) -> Iterator[ImageBatch]:
        """Every process reads the whole stream, and decodes its own part."""
        assert isinstance(self.source, streaming.Stream)
        examples = itertools.islice(streaming.examples(self.source), self.limit)
        for number in itertools.count():
            chunk = list(itertools.islice(examples, batch_size))
            if not chunk:
                return
            if number % world_size != rank or number // world_size < first:
                continue
            reads = [(example.decode, example.name) for example in chunk]
            yield _read_batch(number, batch_size, reads, [example.name for example in chunk], view)


class _BatchDataset(Dataset[ImageBatch]):
    """Batch number -> the batch."""

    def __init__(self, source: ImageSource, view: View, batch_size: int) -> None:
        self.source, self.view, self.batch_size = source, view, batch_size

    def __getitem__(self, number: int) -> ImageBatch:
        indices = range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.source)))
        reads = [(functools.partial(self.source.read, index), self.source.name(index)) for index in indices]
        titles = [self.source.title(index) for index in indices]
        return _read_batch(number, self.batch_size, reads, titles, self.view)


def _read_batch(
    number: int,
    batch_size: int,
    reads: Sequence[tuple[Callable[[], Image.Image], str]],
    titles: list[str],
    view: View,
) -> ImageBatch:
    indices, names, pixels = [], [], []
    skips: list[Skip] = []
    for place, (read, name) in enumerate(reads):
        image = read_or_skip(read, name, 1, skips.append)
        if image is not None:
            indices.append(number * batch_size + place)
            names.append(titles[place])
            pixels.append(view(image))
    stacked = torch.stack(pixels) if pixels else torch.empty(0, 3, 0, 0, dtype=torch.uint8)  # [B, 3, size, size]
    return ImageBatch(number, tuple(indices), tuple(names), stacked, tuple(skips))


def open_images(
    name: str,
    limit: int | None = None,
    split: str = "validation",
    image_column: str | None = None,
    workers: int | None = None,
) -> EvaluationImages:
    """The images to evaluate on.

    Args:
        name: "photographs" (the two of scikit-image that training holds out), a folder of images, of tar shards or of
            a dataset, a pattern of tar shards ("shards/{000..127}.tar", "https://...tar"), or a dataset on the Hugging
            Face Hub ("owner/name").
        limit: at most so many images; of a stream the first ones.
        split: the split of a dataset.
        image_column: as `data.image_column`.
        workers: processes that decode images; None: as in training.

    Raises:
        DataError: there are no images; the message names the place and the way out.
    """
    skipped = SkipCounts()
    if name == PHOTOGRAPHS:
        config = DataConfig(source=PHOTOGRAPHS, workers=workers)
        photographs: ImageSource = FileSource(built_in_paths(BUILT_IN_HELD_OUT))
        return _listed(name, photographs, "photographs", config, limit, skipped)
    kind = _kind(name)
    config = DataConfig(source=kind, path=name, image_column=image_column, workers=workers)
    if kind == "folder":
        return _listed(name, FileSource(find_images(name, "DATA"), name), "images", config, limit, skipped)
    if kind == "dataset":
        return _listed(name, streaming.open_rows(config, split), f"images of split {split}", config, limit, skipped)
    shards = streaming.find_shards(name)
    if all(shard.endswith(".tar") and not streaming.is_remote(shard) for shard in shards):
        source = streaming.ShardSource(shards, image_column, streaming.shard_folder(name))
        for skip in source.damaged:
            skipped.add(skip)
        if not len(source):
            raise DataError(f"DATA must hold images, got {len(shards)} tar shards without ({name})")
        return _listed(name, source, f"images in {len(shards):,} tar shards", config, limit, skipped)
    stream = streaming.open_shard_stream(shards, image_column)
    return EvaluationImages(name, f"a stream of {len(shards):,} tar shards", stream, limit, skipped, 0)


def _kind(name: str) -> str:
    """ "folder", "dataset" or "webdataset", by what is there."""
    path = Path(name).expanduser()
    if not path.exists():
        if ".tar" in name or ".tgz" in name or "{" in name:
            return "webdataset"
        is_hub_name = name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not path.parent.is_dir()
        return "dataset" if is_hub_name else "folder"
    if path.is_file():
        return "webdataset" if ".tar" in path.suffixes or path.suffix == ".tgz" else "folder"
    if any((path / saved).is_file() for saved in ("state.json", "dataset_dict.json", "dataset_infos.json")):
        return "dataset"
    endings = {file.suffix.lower() for file in path.rglob("*") if not file.name.startswith(".")}
    if endings & readable_endings():
        return "folder"
    if endings & {".parquet", ".arrow"}:
        return "dataset"
    return "webdataset" if endings & {".tar", ".tgz"} else "folder"


def _listed(
    name: str, source: ImageSource, what: str, config: DataConfig, limit: int | None, skipped: SkipCounts
) -> EvaluationImages:
    """Images that can be read in any order: by a hash of their names, so that the first few are of all classes."""
    source = SourceSubset(source, evaluation_order(source, config)[:limit])
    return EvaluationImages(name, f"{len(source):,} {what}", source, limit, skipped, config.worker_count)
