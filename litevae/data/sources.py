"""Which photographs does a run train on, and which are held out? A folder's images or the built-in ones.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from PIL import Image

from litevae.data.config import DataConfig
from litevae.data.images import UnreadableImageError, read_image

BUILT_IN_TRAINING = (
    "astronaut.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "hubble_deep_field.jpg",
)
BUILT_IN_HELD_OUT = ("chelsea.png", "coffee.png")


class DataError(Exception):
    """No images to train or evaluate with; the message names the folder and the way out."""


@dataclass(frozen=True)
class Photo:
    """A decoded photograph and the name it goes by in figures and warnings."""

    name: str
    image: Image.Image


@dataclass
class PhotoSource:
    """A fixed list of image files, decoded when asked for.

    An unreadable file is warned about once, by name, and replaced by the next readable one, so photo i is the same
    in every run over the same folder.
    """

    paths: Sequence[Path]
    keep_decoded: bool = False
    _decoded: dict[int, Image.Image] = field(default_factory=dict, repr=False)
    _unreadable: set[int] = field(default_factory=set, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Photo:
        """Photo `index`, or the next one in the list that can be read.

        Raises:
            DataError: not one of the files can be read.
        """
        for offset in range(len(self.paths)):
            at = (index + offset) % len(self.paths)
            image = self._read(at)
            if image is not None:
                return Photo(self.name(at), image)
        raise DataError(f"none of the {len(self.paths)} image files in {self.paths[0].parent} can be read")

    def readable(self, limit: int) -> list[Photo]:
        """The first `limit` photos that can be read, each once."""
        photos: list[Photo] = []
        for at in range(len(self.paths)):
            if len(photos) == limit:
                break
            image = self._read(at)
            if image is not None:
                photos.append(Photo(self.name(at), image))
        return photos

    def name(self, at: int) -> str:
        """The file's path below the folder that all of them share: cat/1.png and dog/1.png stay two."""
        return self.paths[at].relative_to(os.path.commonpath([path.parent for path in self.paths])).as_posix()

    def _read(self, at: int) -> Image.Image | None:
        if at in self._unreadable:
            return None
        if at in self._decoded:
            return self._decoded[at]
        try:
            image = read_image(self.paths[at])
        except UnreadableImageError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
            self._unreadable.add(at)
            return None
        if self.keep_decoded:
            self._decoded[at] = image
        return image


def open_sources(config: DataConfig) -> tuple[PhotoSource, list[Photo]]:
    """The training source and the held-out photos of a run; no file is in both.

    Raises:
        DataError: a folder is missing, empty or unreadable, or is too small to hold an image out.
    """
    if config.path is None:
        training = built_in_paths(BUILT_IN_TRAINING)
        held_out = built_in_paths(BUILT_IN_HELD_OUT)
        if config.validation_path is not None:
            held_out = find_images(config.validation_path, "data.validation_path")
    else:
        training, held_out = split_folder(config)
    source = PhotoSource(training, keep_decoded=config.path is None)
    photos = PhotoSource(held_out).readable(config.evaluation_images)
    if not photos:
        raise DataError(f"none of the {len(held_out)} held-out image files in {held_out[0].parent} can be read")
    source[0]  # raises before the training starts if there is nothing to train on
    return source, photos


def split_folder(config: DataConfig) -> tuple[list[Path], list[Path]]:
    """The files of `data.path` to train on, and the held-out files."""
    assert config.path is not None
    files = find_images(config.path, "data.path")
    if config.validation_path is not None:
        held_out = find_images(config.validation_path, "data.validation_path")
        kept_out = {path.resolve() for path in held_out}
        training = [path for path in files if path.resolve() not in kept_out]
        if not training:
            raise DataError(f"every image of data.path {config.path} is also in data.validation_path: none is left")
        return training, held_out
    if len(files) < 2:
        raise DataError(
            f"data.path {config.path} must hold at least 2 images, one of them held out, got {len(files)}; "
            "add images, or set data.validation_path to a folder of held-out ones"
        )
    count = min(max(1, round(len(files) * config.holdout)), len(files) - 1)
    return files[:-count], files[-count:]


def find_images(folder: str, key: str) -> list[Path]:
    """All files below `folder` whose ending Pillow knows, in name order; hidden files and folders are left out.

    Raises:
        DataError: no such folder, not a folder, or no image in it; the message names `key` and the folder.
    """
    root = Path(folder).expanduser()
    if not root.exists():
        raise DataError(f"{key} must name a folder of images, got {root}, which does not exist")
    if not root.is_dir():
        raise DataError(f"{key} must name a folder of images, got the file {root}; its folder is {root.parent}")
    Image.init()
    endings = {ending for ending, form in Image.registered_extensions().items() if form in Image.OPEN}
    found = []
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    images = sorted(path for path in found if path.suffix.lower() in endings)
    if not images:
        raise DataError(
            f"{key} must name a folder of images, got {root}, which holds none"
            + (f" (its {len(found)} files have other endings)" if found else " (it is empty)")
        )
    return images


def built_in_paths(names: Sequence[str]) -> list[Path]:
    """Where scikit-image keeps photographs that come with the package itself.

    Raises:
        DataError: scikit-image is missing, or its package holds no such file.
    """
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
