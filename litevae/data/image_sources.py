"""Fixed lists of image files, a folder's or the built-in photographs; each file is decoded when it is asked for.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from litevae.data.errors import DataError
from litevae.data.images import read_image, readable_endings

BUILT_IN_TRAINING = (
    "astronaut.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "hubble_deep_field.jpg",
)
BUILT_IN_HELD_OUT = ("chelsea.png", "coffee.png")


class ImageSource(Protocol):
    """A list of images that can be read in any order.

    The order is the same at every start, as sample n depends on it. Images are read in the main process first, then in
    workers: open handles belong to a process and are not pickled. `name` and `title` are unique.
    """

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What warnings call image `index`: enough to find it."""

    def title(self, index: int) -> str:
        """What figures and tables call it."""

    def identities(self) -> Iterable[str]:
        """What decides which images are held out (split.py): of each image a text that stays what it is when other
        images come or go, wherever the data lie."""

    def read(self, index: int) -> Image.Image:
        """Decode image `index` to RGB without a warning of its profile, or raise an UnreadableImageError."""


@dataclass(frozen=True)
class SourceSubset:
    """Images indices[0], indices[1] ... of a source, as a source."""

    source: ImageSource
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def title(self, index: int) -> str:
        return self.source.title(int(self.indices[index]))

    def identities(self) -> Iterable[str]:
        every = list(self.source.identities())
        return (every[index] for index in self.indices)

    def read(self, index: int) -> Image.Image:
        return self.source.read(int(self.indices[index]))


class PackedStrings:
    """A list of strings in two arrays. Forked workers share the memory of arrays; reading a list of strings would copy
    its pages into every worker, because reading writes reference counts."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(string) for string in strings]
        self._ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)
        self._text = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._text[start : int(self._ends[index])].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


class FileSource:
    """A list of image files; with `keep_decoded` each is decoded once and stays in memory.

    Args:
        folder: what `find_images` searched: an image's identity is its path below it. None: its whole path.
    """

    def __init__(self, paths: Iterable[str | Path], folder: str | None = None, keep_decoded: bool = False) -> None:
        self.paths = PackedStrings(os.fspath(path) for path in paths)
        folders = {os.path.dirname(path) for path in self.paths}
        self._root = os.path.commonpath(folders) if folders else ""
        self._searched = "" if folder is None else os.path.join(Path(folder).expanduser(), "")
        self._decoded: dict[int, Image.Image] | None = {} if keep_decoded else None

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def title(self, index: int) -> str:
        """The path below the folder that all files share: cat/1.png and dog/1.png keep different titles.

        Bytes that are not UTF-8, which figures could not show, are written out.
        """
        path = Path(os.path.relpath(self.paths[index], self._root)).as_posix()
        return path.encode("utf-8", "backslashreplace").decode("utf-8")

    def identities(self) -> Iterable[str]:
        return (path.removeprefix(self._searched).replace(os.sep, "/") for path in self.paths)

    def real_path(self, index: int) -> str:
        """The file that its path leads to through links, of the file or of its folder."""
        path = self.paths[index]
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        return os.path.join(_real_folder(folder), name)

    def read(self, index: int) -> Image.Image:
        if self._decoded is None:
            return read_image(self.paths[index], warn=False)
        if index not in self._decoded:
            self._decoded[index] = read_image(self.paths[index], warn=False)
        return self._decoded[index]


_real_folder = functools.lru_cache(maxsize=4096)(os.path.realpath)


def find_images(folder: str, key: str) -> list[str]:
    """All files below `folder` whose ending Pillow knows, in name order; hidden files and folders are left out.

    Not `datasets.load_dataset("imagefolder")`, which takes a folder named "train" or "test" for a split and writes to
    the user's cache. A DataError, where there is no image, names `key` and the folder.
    """
    root = Path(folder).expanduser()
    if not root.exists():
        raise DataError(f"{key} must name a folder of images, got {root}, which does not exist{_other_source(folder)}")
    if not root.is_dir():
        hint = _other_source(folder)
        raise DataError(f"{key} must name a folder of images, got the file {root}; its folder is {root.parent}{hint}")
    found = _walk(root)
    endings = readable_endings()
    images = [path for path in found if os.path.splitext(path)[1].lower() in endings]
    if not images:
        raise DataError(
            f"{key} must name a folder of images, got {root}, which holds none"
            + (f" (its {len(found)} files have other endings)" if found else " (it is empty)")
            + "".join({_other_source(path) for path in found} - {""})
        )
    return sorted(images, key=lambda path: path.split(os.sep))


def _walk(root: Path) -> list[str]:
    """Every file below `root` that is not hidden; links are followed, but no folder is entered twice."""
    found: list[str] = []
    entered: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return found


def _other_source(path: str) -> str:
    """The way out where a folder of images was expected and `path` looks like something else."""
    name = path.lower()
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return "; tar shards are read with data.source=webdataset"
    if name.endswith((".parquet", ".arrow")):
        return "; a dataset is read with data.source=dataset"
    if not Path(path).exists() and name.count("/") == 1 and not name.startswith(("/", ".", "~")):
        return "; a dataset on the hub is read with data.source=dataset"
    return ""


def built_in_paths(names: Sequence[str]) -> list[Path]:
    """The photographs that scikit-image's own package holds; a DataError if it does not."""
    try:
        folder = Path(str(resources.files("skimage") / "data"))
    except ModuleNotFoundError:
        raise DataError(
            "the built-in photographs need scikit-image: pip install 'litevae[train]', or set data.path to a folder"
        ) from None
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"scikit-image's folder {folder} lacks {', '.join(missing)}; set data.path to a folder")
    return [folder / name for name in names]
