"""Have the images of a source changed since? A key that is cheap: no image is read.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import hashlib
import os
from collections.abc import Iterable

from litevae.data.image_sources import FileSource, ImageSource, SourceSubset
from litevae.data.streaming import DatasetSource, ShardSource, Stream


def source_key(source: ImageSource | Stream) -> str | None:
    """A hash that another choice, order, name or file of images changes; None where nothing cheap is known of them.

    Files count by their names below the folder, sizes and times of change, so a folder keeps its key when it is moved;
    datasets by the fingerprint that the library datasets gives them. Files that are changed within the resolution of
    their file system's clock may keep their key: compare what was read, too (evaluation/content_hash.py).
    """
    if isinstance(source, SourceSubset):
        whole = source_key(source.source)
        return None if whole is None else _hash(["subset", whole, *map(str, source.indices)])
    if isinstance(source, FileSource):
        named = zip(source.identities(), source.paths, strict=True)
        return _hash(["files", *(f"{identity} {_status(path)}" for identity, path in named)])
    if isinstance(source, ShardSource):
        return _hash(["shards", *source.identities(), *map(_status, source.shards)])
    if isinstance(source, DatasetSource):
        return _hash(["dataset", source.column, source.rows._fingerprint])
    return None


def _status(path: str) -> str:
    """Size, and when its content and its entry changed, in nanoseconds: a copy may be given an old time of content."""
    try:
        status = os.stat(path)
    except OSError:
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _hash(lines: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for line in lines:
        digest.update(os.fsencode(line) + b"\0")
    return digest.hexdigest()
