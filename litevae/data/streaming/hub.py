"""Hugging Face datasets: from the hub, a local folder or save_to_disk, in any order or as a stream.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

The library is imported only when a run asks for it. Images are decoded by `litevae.data.images`, not by the library:
16 bits, EXIF and hostile content are treated as in files.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from PIL import Image

from litevae.data.config import DataConfig
from litevae.data.errors import DataError, one_line
from litevae.data.images import decode_image, unreadable
from litevae.data.streaming.shards import is_remote, read_shards


@dataclass(frozen=True)
class Encoded:
    """An image that is not decoded yet: its content, or where to get it, or the reason why there is none."""

    name: str
    content: bytes | None = None
    path: str | None = None
    damage: str = "there is no image"

    def fetch(self) -> "Encoded":
        """Itself, with the content of its path."""
        if self.content is not None or self.path is None:
            return self
        import fsspec

        try:
            if not is_remote(self.path) and not os.path.isfile(self.path):
                return Encoded(self.name, damage="no such file")  # or a pipe, which would block
            with fsspec.open(self.path, "rb") as file:
                return Encoded(self.name, content=file.read())
        except Exception as error:  # each remote file system raises errors of its own library
            return Encoded(self.name, damage=one_line(error))

    def decode(self) -> Image.Image:
        """The RGB image; see `read_image`. It warns of no profile."""
        fetched = self.fetch()
        if fetched.content is None:
            raise unreadable(self.name, fetched.damage)
        return decode_image(fetched.content, self.name, warn=False)


@dataclass(frozen=True)
class DatasetSource:
    """The rows of a dataset that can be read in any order."""

    rows: Any
    """datasets.Dataset"""
    column: str
    folder: str = ""
    """`data.path`, if it is a folder on this machine."""
    every_column: Any = None
    """The same rows with their other columns, such as classes; None: there are none."""

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"row {index}"

    def title(self, index: int) -> str:
        return self.name(index)

    def identities(self) -> Iterable[str]:
        """The path beside each image, below `folder`. Where there is none, or one of this machine: the row's number.

        A row's number stays what it is only while no row before it comes or goes. Its content always would, but all
        images would have to be read for that.
        """
        roots = {os.path.join(root, "") for root in (os.path.abspath(self.folder), os.path.realpath(self.folder))}
        for index, path in enumerate(self._paths()):
            below = path or ""
            for root in roots if self.folder else ():
                below = below.removeprefix(root)
            yield below.replace(os.sep, "/") if below and not os.path.isabs(below) else f"row {index}"

    def _paths(self) -> Iterable[str | None]:
        flat = self.rows.flatten()  # of the struct's bytes nothing is read
        name = f"{self.column}.path"
        if name not in flat.column_names:  # a column of bytes
            return itertools.repeat(None, len(self))
        batches = flat.select_columns([name]).iter(batch_size=1000)
        return itertools.chain.from_iterable(batch[name] for batch in batches)

    def read(self, index: int) -> Image.Image:
        return from_cell(self.rows[index][self.column], self.name(index)).decode()


@dataclass(frozen=True)
class Stream:
    """A dataset that is read from front to back, shard by shard."""

    rows: Any
    """datasets.IterableDataset"""
    column: str | None
    """None: the rows are those of `read_shards`."""

    def encoded(self, row: dict[str, Any], shard: int, number: int) -> Encoded:
        """The image of a row, the `number`-th of its shard."""
        if self.column is None:
            return Encoded(row["name"], content=row["content"], damage=row["damage"] or "")
        return from_cell(row[self.column], f"row {number} of shard {shard}")


def from_cell(cell: Any, name: str) -> Encoded:
    """A cell of a column of images or bytes; images carry their content, a path, or both."""
    if isinstance(cell, bytes):
        return Encoded(name, content=cell)
    if not isinstance(cell, dict):
        return Encoded(name)
    path = cell.get("path")
    return Encoded(f"{name} ({path})" if path else name, content=cell.get("bytes"), path=path)


def open_rows(config: DataConfig, split: str) -> DatasetSource:
    """A split of `data.path`, read in any order; a DataError if it cannot be loaded or has no column of images."""
    datasets = import_datasets()
    rows = _load(config, split, streaming=False)
    column = _image_column(rows.features, config)
    every = rows
    rows = rows.select_columns([column])
    if isinstance(rows.features[column], datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return DatasetSource(rows, column, str(config.local_path) if config.local_path.is_dir() else "", every)


def open_row_stream(config: DataConfig, split: str) -> Stream:
    """A split of `data.path` as a stream."""
    rows = _load(config, split, streaming=True)
    column = _image_column(rows.features, config)
    return Stream(rows.decode(False).select_columns([column]), column)


def open_shard_stream(shards: list[str], ending: str | None) -> Stream:
    """Tar files as a stream."""
    datasets = import_datasets()
    arguments = {"shards": shards, "ending": ending}
    return Stream(datasets.IterableDataset.from_generator(read_shards, gen_kwargs=arguments), None)


def import_datasets() -> ModuleType:
    """The library, or a DataError that says how to get it."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise DataError(
            "data.source=dataset and streams need the datasets library: pip install 'litevae[train]'"
        ) from None
    return datasets


def _load(config: DataConfig, split: str, streaming: bool) -> Any:
    datasets = import_datasets()
    local = config.local_path
    saved = (local / "state.json").is_file() or (local / "dataset_dict.json").is_file()
    if saved and streaming:
        raise DataError(f"{local} was written by save_to_disk and needs no streaming: set data.streaming=false")
    try:
        with _quiet(datasets):
            if not saved:
                name = str(local) if local.exists() else config.path
                return datasets.load_dataset(
                    name, config.subset, split=split, streaming=streaming, cache_dir=config.cache_dir
                )
            rows = datasets.load_from_disk(str(local))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data.path={config.path} cannot be loaded as a dataset (split {split}): {one_line(error)}; it must be "
            "a name on the hub, which needs the network or an earlier download, or a local folder"
        ) from error
    if not isinstance(rows, datasets.DatasetDict):
        return rows
    if split not in rows:
        raise DataError(f"data.path={config.path} must have the split {split}, got {', '.join(rows)}")
    return rows[split]


@contextlib.contextmanager
def _quiet(datasets: ModuleType) -> Iterator[None]:
    """Progress bars of downloads and conversions on a terminal only."""
    if sys.stderr.isatty() or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _image_column(features: Any, config: DataConfig) -> str:
    datasets = import_datasets()
    if features is None:
        raise DataError(f"data.path={config.path} must say the types of its columns; parquet files do")
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    column = config.image_column or (images[0] if images else None)
    if column is None:
        raise DataError(
            f"data.path={config.path} must have a column of images, got {', '.join(features)}; "
            "set data.image_column to a column of encoded bytes, if it is one"
        )
    if column not in features:
        raise DataError(f"data.image_column must be one of {', '.join(features)}, got {column}")
    if column not in images and getattr(features[column], "dtype", None) not in ("binary", "large_binary"):
        raise DataError(f"data.image_column must hold images or bytes, got {column}: {features[column]}")
    return column
