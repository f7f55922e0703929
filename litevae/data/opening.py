"""How does a `data` section become batches and held-out images? Open the source, hold out, check that it can be used.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import functools
import os

from PIL import Image

from litevae.data.config import DEAD_LEAVES, MIXED, DataConfig
from litevae.data.dead_leaves import dead_leaves
from litevae.data.errors import DataError
from litevae.data.samples import DeadLeavesSamples, MixedSamples, PhotoSamples
from litevae.data.skipped import SkipCounts, usable
from litevae.data.sources import (
    BUILT_IN_HELD_OUT,
    BUILT_IN_TRAINING,
    ImageSource,
    Part,
    Photo,
    PhotoSource,
    built_in_paths,
    find_images,
)
from litevae.data.streaming import hub
from litevae.data.streaming.hub import Stream
from litevae.data.streaming.readers import shard_count
from litevae.data.streaming.shards import ShardSource, find_shards, is_remote
from litevae.data.streaming.streams import first_usable
from litevae.data.training_data import TrainingData
from litevae.seeds import derive_rng


def open_data(config: DataConfig, seed: int) -> TrainingData:
    """Open the source that a run is told to train on, and read its held-out images.

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
    training = PhotoSource(built_in_paths(BUILT_IN_TRAINING), keep_decoded=True)
    held_out = _validation_folder(config) or PhotoSource(built_in_paths(BUILT_IN_HELD_OUT))
    data = _open_images(config, seed, training, held_out, "photographs")
    if config.resolved_source == MIXED and data.samples is not None:
        data.samples = MixedSamples(data.samples, DeadLeavesSamples(config, seed), config.dead_leaves_share, seed)
        data.description += f", and dead leaves for {config.dead_leaves_share:.0%} of the samples"
    return data


def _open_dead_leaves(config: DataConfig, seed: int) -> TrainingData:
    skipped = SkipCounts()
    folder = _validation_folder(config)
    held_out = _drawn(config) if folder is None else _take(folder, config, skipped)
    return TrainingData(config, seed, "dead leaves without end", held_out, skipped, DeadLeavesSamples(config, seed))


def _drawn(config: DataConfig) -> list[Photo]:
    """Held-out dead leaves: the same for every run, whatever its seed."""
    size = config.evaluation_size or 256
    return [
        Photo(f"dead leaves {index}", Image.fromarray(dead_leaves(size, derive_rng(0, "held-out dead leaves", index))))
        for index in range(config.evaluation_images)
    ]


def _open_folder(config: DataConfig, seed: int) -> TrainingData:
    files = find_images(str(config.path), "data.path")
    if config.validation_path is None:
        return _open_images(config, seed, *_hold_out(PhotoSource(files), config), "images")
    held_out = find_images(config.validation_path, "data.validation_path")
    kept_out = {os.path.realpath(path) for path in held_out}
    training = [path for path in files if os.path.realpath(path) not in kept_out]
    if not training:
        raise DataError(f"every image of data.path {config.path} is also in data.validation_path: none is left")
    return _open_images(config, seed, PhotoSource(training), PhotoSource(held_out), "images")


def _open_dataset(config: DataConfig, seed: int) -> TrainingData:
    name = f"the dataset {config.path}"
    if config.streaming:
        stream = hub.open_row_stream(config, config.split)
        return _open_stream(config, seed, stream, f"a stream of {shard_count(stream):,} shards of {name}")
    rows = hub.open_rows(config, config.split)
    if config.validation_split is not None:
        pair: tuple[ImageSource, ImageSource] = (rows, hub.open_rows(config, config.validation_split))
    else:
        pair = _hold_out(rows, config)
    return _open_images(config, seed, *pair, f"images of {name}")


def _open_shards(config: DataConfig, seed: int) -> TrainingData:
    shards = find_shards(str(config.path))
    if config.streaming or any(is_remote(shard) for shard in shards):
        stream = hub.open_shard_stream(shards, config.image_column)
        return _open_stream(config, seed, stream, f"a stream of {len(shards):,} tar shards")
    source = ShardSource(shards, config.image_column)
    skipped = SkipCounts()
    for skip in source.damaged:
        skipped.add(skip)
    if not len(source):
        raise DataError(f"data.path={config.path} must name tar shards with images, got {len(shards)} shards without")
    return _open_images(config, seed, *_hold_out(source, config), f"images in {len(shards):,} tar shards", skipped)


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
    photos = _take(held_out, config, skipped)
    samples = PhotoSamples(training, config, seed)
    try:
        samples.crop(0)  # raises before the training starts if there is nothing to train on
    finally:
        for skip in samples.take_skips():
            skipped.add(skip)
    return TrainingData(config, seed, f"{len(training):,} {what}", photos, skipped, samples)


def _open_stream(config: DataConfig, seed: int, stream: Stream, what: str) -> TrainingData:
    """What can only be read from the front: without a place of its own, what is held out is what comes first."""
    skipped = SkipCounts()
    folder, left_out = _validation_folder(config), set[bytes]()
    if folder is not None:
        photos = _take(folder, config, skipped)
    else:
        held_out = hub.open_row_stream(config, config.validation_split) if config.validation_split else stream
        smallest = config.smallest_evaluation_side
        photos, digests = first_usable(held_out, config.evaluation_images, smallest, skipped.add)
        if not photos:
            raise DataError(f"data.path={config.path} must hold images, got none that can be used as held-out ones")
        if held_out is stream:
            left_out = digests
    if not first_usable(stream, 1, config.smallest_side, skipped.add, left_out)[0]:
        raise DataError(
            f"data.path={config.path} must hold images to train on, got none that can be used besides the "
            f"{len(left_out)} held-out ones; with few images set data.evaluation_images to fewer"
        )
    return TrainingData(config, seed, what, photos, skipped, None, stream, left_out)


def _validation_folder(config: DataConfig) -> PhotoSource | None:
    if config.validation_path is None:
        return None
    return PhotoSource(find_images(config.validation_path, "data.validation_path"))


def _hold_out(source: ImageSource, config: DataConfig) -> tuple[ImageSource, ImageSource]:
    """The images to train on and those to hold out: the validation folder's or the last share of the source."""
    folder = _validation_folder(config)
    if folder is not None:
        return source, folder
    count = len(source)
    if count < 2:
        raise DataError(
            f"data.path {config.path} must hold at least 2 images, one of them held out, got {count}; "
            "add images, or set data.validation_path to a folder of held-out ones"
        )
    kept_out = min(max(1, round(count * config.holdout)), count - 1)
    return Part(source, 0, count - kept_out), Part(source, count - kept_out, count)


def _take(source: ImageSource, config: DataConfig, skipped: SkipCounts) -> list[Photo]:
    """The first `evaluation_images` usable images."""
    photos: list[Photo] = []
    for index in range(len(source)):
        if len(photos) == config.evaluation_images:
            break
        read = functools.partial(source.read, index)
        image = usable(read, source.name(index), config.smallest_evaluation_side, skipped.add)
        if image is not None:
            photos.append(Photo(source.title(index), image))
    if not photos:
        raise DataError(f"none of the {len(source)} held-out images can be used, the first is {source.name(0)}")
    return photos
