"""Which class is each image of a source of? What folders, columns and tar shards say of it.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import hashlib
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from litevae.data.errors import DataError
from litevae.data.image_sources import FileSource, ImageSource, SourceSubset
from litevae.data.streaming import DatasetSource, ShardSource

COLUMN = "label"


@dataclass(frozen=True)
class Labels:
    """The classes of a source's images."""

    classes: tuple[str, ...]
    """Their names, by number."""
    numbers: np.ndarray
    """int64, one for each image of the source."""

    @property
    def hexdigest(self) -> str:
        """A hash that any other name or number changes."""
        digest = hashlib.blake2b("\0".join(self.classes).encode(), digest_size=16)
        digest.update(self.numbers.tobytes())
        return digest.hexdigest()


def read_labels(source: ImageSource, column: str = COLUMN) -> Labels | None:
    """The label of each image, in the order of the source; None where it has none.

    A folder's: the first folder below it that an image lies in, if every image lies in one and there are two or more,
    in the order of their names (as torchvision's ImageFolder). A dataset's: its column of this name. Of tar shards the
    number in the member KEY.cls beside KEY.jpg, if every image has one.

    Raises:
        DataError: a dataset's column that holds no classes, or one that was asked for and is not there.
    """
    if isinstance(source, SourceSubset):
        whole = read_labels(source.source, column)
        return None if whole is None else Labels(whole.classes, whole.numbers[source.indices])
    if isinstance(source, FileSource):
        return _of_folders([PurePosixPath(identity).parts[:-1] for identity in source.identities()])
    if isinstance(source, DatasetSource):
        return _of_column(source, column)
    if isinstance(source, ShardSource):
        return _of_shards(source)
    return None


def _of_folders(folders: Sequence[tuple[str, ...]]) -> Labels | None:
    """folders: of each image those above it, below the folder that was searched."""
    if not all(folders) or any(folder[0] == "/" for folder in folders):  # built-in photographs have whole paths
        return None
    classes = sorted({folder[0] for folder in folders})
    if len(classes) < 2:
        return None
    number = {name: index for index, name in enumerate(classes)}
    return Labels(tuple(classes), np.array([number[folder[0]] for folder in folders], dtype=np.int64))


def _of_column(source: DatasetSource, column: str) -> Labels | None:
    rows = source.rows if source.every_column is None else source.every_column
    feature = rows.features.get(column)
    if feature is None:
        if column == COLUMN:
            return None
        raise DataError(f"the column of classes must be one of {', '.join(rows.features)}, got {column}")
    numbers = np.asarray(rows.select_columns([column]).with_format("numpy")[column][:])
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or (len(numbers) and numbers.min() < 0):
        rule = f"the column {column} of a dataset must hold the numbers of classes, 0 and up"
        raise DataError(f"{rule}, got {feature}; name another column")
    names = getattr(feature, "names", None) or [str(number) for number in range(int(numbers.max(initial=-1)) + 1)]
    return Labels(tuple(names), numbers.astype(np.int64))


def _of_shards(source: ShardSource) -> Labels | None:
    numbers = dict(_classes_of_keys(source.shards))
    found = [numbers.get(_key(name)) for name in map(source.name, range(len(source)))]
    if not found or None in found:
        if numbers and found:
            warnings.warn(
                f"no labels: {found.count(None)} of {len(found)} images have no .cls beside them", stacklevel=2
            )
        return None
    array = np.array(found, dtype=np.int64)
    return Labels(tuple(str(number) for number in range(int(array.max()) + 1)), array)


def _key(name: str) -> str:
    """A member's name up to its first dot: what WebDataset joins the files of a sample by."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _classes_of_keys(shards: Sequence[str]) -> Iterator[tuple[str, int]]:
    """("shard.tar/key", class) of every member key.cls."""
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    key, ending = _key(member.name), member.name.rpartition(".")[2]
                    file = archive.extractfile(member) if ending == "cls" and member.size < 20 else None
                    text = b"" if file is None else file.read().strip()
                    if text.isdigit():
                        yield f"{shard}/{key}", int(text)
        except (tarfile.TarError, OSError, ValueError):
            continue  # its images up to the damage were found, too; those without a class show in read_labels
