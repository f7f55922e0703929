"""The data of a run: `open_data` opens the source that a config names and holds images out; then come batches.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import itertools
import math
import os
import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from litevae.data import streaming
from litevae.data.batches import Batches
from litevae.data.config import DEAD_LEAVES, LAST, MIXED, DataConfig
from litevae.data.errors import DataError, SkipCounts
from litevae.data.held_out import (
    HeldOutImages,
    NoneUsableError,
    hold_out_contents,
    hold_out_dead_leaves,
    hold_out_source,
    hold_out_stream,
    usable_images,
)
from litevae.data.image_sources import (
    BUILT_IN_HELD_OUT,
    BUILT_IN_TRAINING,
    FileSource,
    ImageSource,
    SourceSubset,
    built_in_paths,
    find_images,
)
from litevae.data.split import evaluation_order, split
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
    held_out_contents: Container[bytes] = frozenset()
    """Of a stream: the digests of the examples that are held out."""

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
            samples = streaming.StreamSamples(self.stream, self.config, start, rank, self.held_out_contents)
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

    def first_crops(self, count: int, at_once: int) -> Batches:
        """The first crops of a run, drawn anew: `count` of them, or up to the next multiple of `at_once`.

        No run's position in a stream moves. Of a stream each worker reads a few examples from the front of its shards.
        """
        data, config = self, self.config
        if self.stream is not None:
            workers = min(config.worker_count, streaming.shard_count(self.stream))
            block = min(config.shuffle_block, math.ceil(count / max(1, workers)))
            data = replace(self, config=replace(config, workers=workers, shuffle_block=block))
        return data.batches(0, math.ceil(count / at_once), at_once)


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
    folder = _validation_folder(config)
    if folder is not None:
        held_out = {os.path.realpath(folder.name(index)) for index in range(len(folder))}
        files = [path for path in files if os.path.realpath(path) not in held_out]
        if not files:
            raise DataError(f"every image of data.path {config.path} is also in data.validation_path: none is left")
    return _open_images(config, seed, FileSource(files, config.path), folder, "images")


def _open_dataset(config: DataConfig, seed: int) -> TrainingData:
    name = f"the dataset {config.path}"
    if config.streaming:
        stream = streaming.open_row_stream(config, config.split)
        return _open_stream(config, seed, stream, f"a stream of {streaming.shard_count(stream):,} shards of {name}")
    rows = streaming.open_rows(config, config.split)
    held_out = _validation_folder(config)
    if config.validation_split is not None:
        held_out = _in_evaluation_order(streaming.open_rows(config, config.validation_split), config)
    return _open_images(config, seed, rows, held_out, f"images of {name}")


def _open_shards(config: DataConfig, seed: int) -> TrainingData:
    shards = streaming.find_shards(str(config.path))
    if config.streaming or any(streaming.is_remote(shard) for shard in shards):
        stream = streaming.open_shard_stream(shards, config.image_column)
        return _open_stream(config, seed, stream, f"a stream of {len(shards):,} tar shards")
    source = streaming.ShardSource(shards, config.image_column, streaming.shard_folder(str(config.path)))
    skipped = SkipCounts()
    for skip in source.damaged:
        skipped.add(skip)
    if not len(source):
        raise DataError(f"data.path={config.path} must name tar shards with images, got {len(shards)} shards without")
    what = f"images in {len(shards):,} tar shards"
    return _open_images(config, seed, source, _validation_folder(config), what, skipped)


def _open_images(
    config: DataConfig,
    seed: int,
    training: ImageSource,
    held_out: ImageSource | None,
    what: str,
    skipped: SkipCounts | None = None,
) -> TrainingData:
    """Images that can be read in any order. `held_out`: None for a share of those to train on."""
    skipped = SkipCounts() if skipped is None else skipped
    if held_out is None:
        training, held_out_images = _hold_out_share(training, config, skipped)
    else:
        held_out_images = hold_out_source(held_out, config, skipped)
    samples = ImageSamples(training, config, seed)
    try:
        samples.crop(0)  # raises before the training starts if there is nothing to train on
    finally:
        for skip in samples.take_skips():
            skipped.add(skip)
    return TrainingData(config, seed, f"{len(training):,} {what}", held_out_images, skipped, samples)


def _open_stream(config: DataConfig, seed: int, stream: streaming.Stream, what: str) -> TrainingData:
    """Images that can only be read in sequence."""
    skipped, contents = SkipCounts(), cast(Container[bytes], frozenset())
    folder = _validation_folder(config)
    if folder is not None:
        held_out = hold_out_source(folder, config, skipped)
    elif config.validation_split is not None:
        held_out = hold_out_stream(streaming.open_row_stream(config, config.validation_split), config, skipped)
    elif config.holdout_rule == LAST:
        held_out = hold_out_stream(stream, config, skipped)
        usable = streaming.usable_examples(stream, config.smallest_evaluation_side, skipped.add)
        first = itertools.islice(usable, config.evaluation_images)
        contents = frozenset(streaming.content_digest(example) for example, _ in first)
    else:
        held_out, contents = hold_out_contents(stream, config, skipped)
    if next(streaming.usable_examples(stream, config.smallest_side, skipped.add, contents), None) is None:
        raise DataError(
            f"data.path={config.path} must hold images to train on, got none that can be used besides held-out ones; "
            "add images, or set data.validation_path to a folder of held-out ones"
        )
    return TrainingData(config, seed, what, held_out, skipped, None, stream, contents)


def _validation_folder(config: DataConfig) -> ImageSource | None:
    if config.validation_path is None:
        return None
    files = find_images(config.validation_path, "data.validation_path")
    return _in_evaluation_order(FileSource(files, config.validation_path), config)


def _in_evaluation_order(source: ImageSource, config: DataConfig) -> ImageSource:
    return SourceSubset(source, evaluation_order(source, config))


def _hold_out_share(source: ImageSource, config: DataConfig, skipped: SkipCounts) -> tuple[ImageSource, HeldOutImages]:
    """(the images to train on, those that are held out): of the latter at least one that can be used."""
    if len(source) < 2:
        raise DataError(
            f"data.path {config.path} must hold at least 2 images, one of them held out, got {len(source)}; "
            "add images, or set data.validation_path to a folder of held-out ones"
        )
    order, count = split(source, config)
    try:
        held_out = hold_out_source(SourceSubset(source, order[:count]), config, skipped)
    except NoneUsableError as error:
        rest = SourceSubset(source, order[count:-1])  # the last one is left to train on
        index, _ = next(usable_images(rest, config, skipped), (None, None))
        if index is None or config.holdout_rule == LAST:
            raise
        instead = f"{rest.name(index)} is held out instead (a run that is resumed may have been trained on it)"
        warnings.warn(f"{error}: {instead}", stacklevel=2)
        count += index + 1
        held_out = hold_out_source(SourceSubset(source, order[:count]), config, skipped)
    training = np.sort(order[count:])
    if isinstance(source, FileSource) and config.holdout_rule != LAST:
        files = {source.real_path(index) for index in order[:count]}
        training = np.array([index for index in training if source.real_path(index) not in files], dtype=int)
    if not len(training):
        raise DataError(f"every image of data.path {config.path} is a link to a held-out one; add images")
    return SourceSubset(source, training), held_out
