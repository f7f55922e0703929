"""The data of a run: `open_data` opens the source that a config names and holds images out; then come batches.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from litevae.data import streaming
from litevae.data.batches import Batches
from litevae.data.config import DEAD_LEAVES, MIXED, DataConfig
from litevae.data.errors import DataError, SkipCounts
from litevae.data.held_out import HeldOutImages, hold_out_dead_leaves, hold_out_source, hold_out_stream
from litevae.data.image_sources import (
    BUILT_IN_HELD_OUT,
    BUILT_IN_TRAINING,
    FileSource,
    ImageSource,
    SourceSlice,
    built_in_paths,
    find_images,
)
from litevae.data.training_samples import DeadLeavesSamples, ImageSamples, MixedSamples, Samples
from litevae_kernels.checks import wrong_value


@dataclass
class TrainingData:
    """What `open_data` returns."""

    config: DataConfig
    seed: int
    description: str
    """Such as "12,345 images in 8 tar shards"."""
    held_out: HeldOutImages
    skipped: SkipCounts
    """Images and shards that could not be used, held-out ones and those that workers report included."""
    samples: Samples | None
    """None: a stream."""
    stream: streaming.Stream | None = None
    held_out_digests: set[bytes] = field(default_factory=set)

    def batches(
        self,
        first_step: int,
        last_step: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        state: Sequence[dict[str, Any]] | None = None,
    ) -> Batches:
        """Batches of process `rank` for the steps first_step .. last_step - 1: its part of each batch of batch_size.

        Args:
            state: what `Batches.state_dict` of every process returned, in the order of their ranks. A stream without
                it, or with one of other shards, seeds, blocks or numbers of processes, begins a pass; other sources
                need none.

        Raises:
            ValueError: the processes cannot share a batch evenly.
        """
        if batch_size % world_size:
            raise wrong_value("batch_size", f"be a multiple of the {world_size} processes", batch_size)
        samples, workers, start = self.samples, self.config.worker_count, None
        if samples is None:
            assert self.stream is not None
            start = streaming.resume_readers(self.stream, self.config, self.seed, rank, world_size, state or [])
            samples = streaming.StreamSamples(self.stream, self.config, start, rank, self.held_out_digests)
            workers = start.readers.per_process if workers else 0
        return Batches(
            samples,
            self.skipped,
            steps=range(first_step, last_step),
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            workers=workers,
            pin_memory=pin_memory,
            start=start,
        )


def open_data(config: DataConfig, seed: int) -> TrainingData:
    """Open the source that a run is told to train on. Of the held-out images only the first usable one is read.

    Raises:
        DataError: it is missing, empty, too small to hold an image out, or nothing in it can be used.
    """
    openers = {
        "photographs": _open_photographs,
        MIXED: _open_photographs,
        DEAD_LEAVES: _open_dead_leaves,
        "folder": _open_folder,
        "dataset": _open_dataset,
        "webdataset": _open_shards,
    }
    return openers[config.resolved_source](config, seed)


def _open_photographs(config: DataConfig, seed: int) -> TrainingData:
    training = FileSource(built_in_paths(BUILT_IN_TRAINING), keep_decoded=True)
    held_out = _validation_folder(config) or FileSource(built_in_paths(BUILT_IN_HELD_OUT))
    data = _open_images(config, seed, training, held_out, "photographs")
    if config.resolved_source == MIXED and data.samples is not None:
        data.samples = MixedSamples(data.samples, DeadLeavesSamples(config, seed), config.dead_leaves_share, seed)
        data.description += f", and dead leaves for {config.dead_leaves_share:.0%} of the samples"
    return data


def _open_dead_leaves(config: DataConfig, seed: int) -> TrainingData:
    skipped = SkipCounts()
    folder = _validation_folder(config)
    held_out = hold_out_dead_leaves(config) if folder is None else hold_out_source(folder, config, skipped)
    return TrainingData(config, seed, "dead leaves without end", held_out, skipped, DeadLeavesSamples(config, seed))


def _open_folder(config: DataConfig, seed: int) -> TrainingData:
    files = find_images(str(config.path), "data.path")
    if config.validation_path is None:
        return _open_images(config, seed, *_hold_out_last(FileSource(files), config), "images")
    held_out = find_images(config.validation_path, "data.validation_path")
    held_out_files = {os.path.realpath(path) for path in held_out}
    training = [path for path in files if os.path.realpath(path) not in held_out_files]
    if not training:
        raise DataError(f"every image of data.path {config.path} is also in data.validation_path: none is left")
    return _open_images(config, seed, FileSource(training), FileSource(held_out), "images")


def _open_dataset(config: DataConfig, seed: int) -> TrainingData:
    name = f"the dataset {config.path}"
    if config.streaming:
        stream = streaming.open_row_stream(config, config.split)
        return _open_stream(config, seed, stream, f"a stream of {streaming.shard_count(stream):,} shards of {name}")
    rows = streaming.open_rows(config, config.split)
    if config.validation_split is not None:
        pair: tuple[ImageSource, ImageSource] = (rows, streaming.open_rows(config, config.validation_split))
    else:
        pair = _hold_out_last(rows, config)
    return _open_images(config, seed, *pair, f"images of {name}")


def _open_shards(config: DataConfig, seed: int) -> TrainingData:
    shards = streaming.find_shards(str(config.path))
    if config.streaming or any(streaming.is_remote(shard) for shard in shards):
        stream = streaming.open_shard_stream(shards, config.image_column)
        return _open_stream(config, seed, stream, f"a stream of {len(shards):,} tar shards")
    source = streaming.ShardSource(shards, config.image_column)
    skipped = SkipCounts()
    for skip in source.damaged:
        skipped.add(skip)
    if not len(source):
        raise DataError(f"data.path={config.path} must name tar shards with images, got {len(shards)} shards without")
    what = f"images in {len(shards):,} tar shards"
    return _open_images(config, seed, *_hold_out_last(source, config), what, skipped)


def _open_images(
    config: DataConfig,
    seed: int,
    training: ImageSource,
    held_out: ImageSource,
    what: str,
    skipped: SkipCounts | None = None,
) -> TrainingData:
    """Images that can be read in any order."""
    skipped = SkipCounts() if skipped is None else skipped
    held_out_images = hold_out_source(held_out, config, skipped)
    samples = ImageSamples(training, config, seed)
    try:
        samples.crop(0)  # raises before the training starts if there is nothing to train on
    finally:
        for skip in samples.take_skips():
            skipped.add(skip)
    return TrainingData(config, seed, f"{len(training):,} {what}", held_out_images, skipped, samples)


def _open_stream(config: DataConfig, seed: int, stream: streaming.Stream, what: str) -> TrainingData:
    """Images that can only be read in sequence: without a split or folder of its own, the first ones are held out."""
    skipped, digests = SkipCounts(), set[bytes]()
    folder = _validation_folder(config)
    if folder is not None:
        held_out = hold_out_source(folder, config, skipped)
    elif config.validation_split is not None:
        held_out = hold_out_stream(streaming.open_row_stream(config, config.validation_split), config, skipped)
    else:
        held_out = hold_out_stream(stream, config, skipped)
        usable = streaming.usable_examples(stream, config.smallest_evaluation_side, skipped.add)
        first = itertools.islice(usable, config.evaluation_images)
        digests = {streaming.content_digest(example) for example, _ in first}
    if next(streaming.usable_examples(stream, config.smallest_side, skipped.add, digests), None) is None:
        raise DataError(
            f"data.path={config.path} must hold images to train on, got none that can be used besides the "
            f"{len(digests)} held-out ones; with few images set data.evaluation_images to fewer"
        )
    return TrainingData(config, seed, what, held_out, skipped, None, stream, digests)


def _validation_folder(config: DataConfig) -> FileSource | None:
    if config.validation_path is None:
        return None
    return FileSource(find_images(config.validation_path, "data.validation_path"))


def _hold_out_last(source: ImageSource, config: DataConfig) -> tuple[ImageSource, ImageSource]:
    """(the images to train on, those to hold out): the validation folder's or the last share of the source."""
    folder = _validation_folder(config)
    if folder is not None:
        return source, folder
    count = len(source)
    if count < 2:
        raise DataError(
            f"data.path {config.path} must hold at least 2 images, one of them held out, got {count}; "
            "add images, or set data.validation_path to a folder of held-out ones"
        )
    first = count - min(max(1, round(count * config.holdout)), count - 1)
    return SourceSlice(source, 0, first), SourceSlice(source, first, count)
