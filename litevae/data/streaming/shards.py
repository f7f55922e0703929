"""The images in tar shards (webdataset): an index for files on this disk, sequential reading for all others.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import glob
import os
import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from litevae.data.errors import DataError, Skip, one_line
from litevae.data.image_sources import PackedStrings
from litevae.data.images import decode_image, readable_endings, unreadable

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# In bytes; a header may claim any size.
_LARGEST_FILE = 2**30  # a larger image is skipped
_LARGEST_MEMBER = 2**33  # at a larger member the shard counts as damaged


class Member(NamedTuple):
    """One image file in a shard, and where its content lies."""

    name: str
    offset: int
    size: int


def find_shards(path: str) -> list[str]:
    """The shards that `data.path` names: all below a folder, or those of a pattern with {000..127}, {a,b}, * and ?."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        found = sorted(str(file) for file in folder.rglob("*") if file.name.endswith(_ENDINGS) and file.is_file())
    else:
        found = [shard for pattern in expand_braces(path) for shard in _expand_pattern(pattern)]
    if not found:
        raise DataError(
            f"data.path must name tar shards (a folder of them or a pattern), got {path}, which matches none"
        )
    return found


def shard_folder(path: str) -> str:
    """What `data.path` fixes of the shards' paths, which may be elsewhere tomorrow: "a/b/" of "a/b/{0..9}.tar"."""
    path = path if is_remote(path) else str(Path(path).expanduser())
    if os.path.isdir(path):
        return os.path.join(path, "")
    fixed = re.match(r"[^*?\[{]*/", path.replace(os.sep, "/"))
    return path[: fixed.end()] if fixed else ""


def expand_braces(pattern: str) -> list[str]:
    """ "a{08..10}b{x,y}" to a08bx, a08by, a09bx ...: numbers keep the width of the first one."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    first, last, words = match.groups()
    parts = words.split(",") if words else [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    return [pattern[: match.start()] + part + rest for part in parts for rest in expand_braces(pattern[match.end() :])]


def is_remote(path: str) -> bool:
    """Whether it is an address such as https://... or hf://..."""
    return "://" in path


def _expand_pattern(pattern: str) -> list[str]:
    if is_remote(pattern):
        return [pattern]
    pattern = os.path.expanduser(pattern)
    return sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]


class ShardSource:
    """The images in uncompressed tar files on this disk, in any order: their headers are read once, when it is made.

    A shard that is cut off keeps the images before the cut; `damaged` names it.

    Args:
        folder: the `shard_folder` of `shards`; an image's identity is its shard's path below it, and its member's name.
    """

    def __init__(self, shards: list[str], ending: str | None, folder: str = "") -> None:
        self.shards, self.folder = shards, folder
        self.damaged: list[Skip] = []
        members: list[Member] = []
        counts = []
        for shard in shards:
            found = self._index(shard, ending)
            members += found
            counts.append(len(found))
        self._members = PackedStrings(member.name for member in members)
        self._shard = np.repeat(np.arange(len(shards)), counts)
        self._place = np.array([(member.offset, member.size) for member in members], dtype=np.int64).reshape(-1, 2)

    def _index(self, shard: str, ending: str | None) -> list[Member]:
        if not shard.endswith(".tar"):
            raise DataError(
                f"the shard {shard} is compressed and can only be read from its front: decompress it, or set "
                "data.streaming=true"
            )
        found: list[Member] = []
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in _images(archive, ending):
                    found.append(Member(member.name, member.offset_data, member.size))
                problem = _unfinished(archive)
        except (tarfile.TarError, OSError, ValueError, MemoryError) as error:  # each by a hostile file's headers
            problem = one_line(error)
        if problem:
            self.damaged.append(Skip(shard, "unreadable", f"{problem}; images found before that: {len(found)}"))
        return found

    def __len__(self) -> int:
        return len(self._members)

    def name(self, index: int) -> str:
        return f"{self.shards[self._shard[index]]}/{self._members[index]}"

    def title(self, index: int) -> str:
        return f"{Path(self.shards[self._shard[index]]).name}/{self._members[index]}"

    def identities(self) -> Iterable[str]:
        shards = [shard.removeprefix(self.folder).replace(os.sep, "/") for shard in self.shards]
        return (f"{shards[shard]}/{member}" for shard, member in zip(self._shard, self._members, strict=True))

    def read(self, index: int) -> Image.Image:
        name, (offset, size) = self.name(index), self._place[index].tolist()
        if size > _LARGEST_FILE:
            raise unreadable(name, f"{size} bytes are too many")
        try:
            with open(self.shards[self._shard[index]], "rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise unreadable(name, error.strerror or str(error)) from error
        return decode_image(content, name, warn=False)


def read_shards(shards: list[str], ending: str | None) -> Iterator[dict[str, Any]]:
    """The images of tar files anywhere, from front to back: {"name", "content", "damage"}.

    A generator for `datasets.IterableDataset`, which assigns the shards and stores how far each was read. Its own
    "webdataset" loader ends the run at the first cut-off shard or unreadable json file. Here a damaged shard yields a
    last row without content, whose "damage" is the reason.
    """
    import fsspec

    for shard in shards:
        try:
            with fsspec.open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in _images(archive, ending):
                    name = f"{shard}/{member.name}"
                    if member.size > _LARGEST_FILE:
                        yield {"name": name, "content": None, "damage": f"{member.size} bytes are too many"}
                    elif (file_in_it := archive.extractfile(member)) is not None:
                        yield {"name": name, "content": file_in_it.read(), "damage": None}
                problem = _unfinished(archive)
        except Exception as error:  # decompressors and file systems raise errors of their own
            problem = one_line(error)
        if problem:
            yield {"name": shard, "content": None, "damage": problem}


def _images(archive: tarfile.TarFile, ending: str | None) -> Iterator[tarfile.TarInfo]:
    """The members that are image files, by their names; hidden ones are left out."""
    endings = {f".{ending.lstrip('.').lower()}"} if ending else readable_endings()
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # else it keeps every header
        if not 0 <= member.size <= _LARGEST_MEMBER:  # tarfile would loop, or read for hours
            raise ValueError(f"{member.name} claims to have {member.size} bytes")
        name = posixpath.basename(member.name)
        is_plain = member.isreg() and not member.issparse()
        if is_plain and not name.startswith(".") and posixpath.splitext(name)[1].lower() in endings:
            yield member


def _unfinished(archive: tarfile.TarFile) -> str | None:
    """What is wrong with an archive that does not end with two blocks of zeros, the first of which was read."""
    rest = archive.fileobj.read(tarfile.BLOCKSIZE) if archive.fileobj is not None else b""
    return None if rest == bytes(tarfile.BLOCKSIZE) else "it is cut off or damaged: its end mark is missing"
