"""Statistics of the originals, kept from one evaluation to the next: when may they be used again?

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]

A stale reference makes every number wrong and nothing fail. So whatever the statistics depend on is in the name of
their file and again inside; and whoever uses them hashes the images as they pass, and compares:

    description = {"data": source_key(images.source), "protocol": {...}, "network": network.protocol,
                   "weights": network.weights_hash, "images": len(images), "size": size}
    reference = cache.load(description)                  # None: features of the originals must be computed
    ...                                                  # the pass, with a ContentHash among its metrics
    if reference is None:
        cache.save(description, Reference(sums, content.hexdigest()))
    elif reference.content != content.hexdigest():       # files changed behind their names, sizes and times
        cache.forget(description)                        # and the pass is run again
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevae.losses.weight_files import DAMAGE, reason
from litevae.state_hash import tensors_hash
from litevae_kernels.files import replacing, user_cache

ENVIRONMENT_VARIABLE = "LITEVAE_CACHE"
_FORMAT = 1
_AGAIN = "the statistics of the originals are computed again"


@dataclass(frozen=True)
class Reference:
    """Statistics of the originals."""

    sums: dict[str, Tensor]
    """float64 or int64, on the CPU."""
    content: str
    """`ContentHash.hexdigest()` of the images that they are of."""


class ReferenceCache:
    """A folder of references, which processes and machines may share; it may be deleted at any time.

    Args:
        folder: None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, description: Mapping[str, Any]) -> Path | None:
        """Where the reference of a description is or would be."""
        name = hashlib.sha256(_text(description).encode()).hexdigest()[:32]
        return None if self.folder is None else self.folder / f"{name}.pt"

    def load(self, description: Mapping[str, Any]) -> Reference | None:
        """The reference that was saved with an equal description; None where there is none.

        One that is damaged, or has another description inside, is none: a UserWarning names it.

        Args:
            description: everything that the statistics depend on, as JSON has it; nothing is kept where its "data" is
                None, because `source_key` knows nothing of the images.
        """
        path = self.path(description)
        if path is None or description.get("data") is None:
            return None
        try:
            return _read(path, _text(description))
        except FileNotFoundError:
            return None
        except DAMAGE as error:
            warnings.warn(f"{path} cannot be used ({reason(error)}); {_AGAIN}", stacklevel=2)
            return None

    def save(self, description: Mapping[str, Any], reference: Reference) -> None:
        """Keep a reference, in place of an older one; a UserWarning where it cannot be written."""
        path = self.path(description)
        if path is None or description.get("data") is None:
            return
        sums = {name: value.cpu() for name, value in reference.sums.items()}
        content = {
            "format": _FORMAT,
            "description": _text(description),
            "content": reference.content,
            "sums": sums,
            "hash": tensors_hash(sums),
        }
        try:
            with replacing(path) as temporary:
                torch.save(content, temporary)
        except (OSError, RuntimeError) as error:  # the latter of torch, where the disk is full
            warnings.warn(
                f"the statistics of the originals cannot be kept in {self.folder} ({reason(error)}); free space "
                f"there, or name another folder with {ENVIRONMENT_VARIABLE}",
                stacklevel=2,
            )

    def forget(self, description: Mapping[str, Any]) -> None:
        """Delete the reference of a description, which proved to be of other images; a UserWarning names it."""
        path = self.path(description)
        if path is None:
            return
        warnings.warn(f"{path} is of other images than those that were read; {_AGAIN}", stacklevel=2)
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return  # the next one is saved over it


def default_cache() -> ReferenceCache:
    """LITEVAE_CACHE/references, or litevae/references in the user's cache folder."""
    folder = user_cache(ENVIRONMENT_VARIABLE, "litevae")
    return ReferenceCache(None if folder is None else folder / "references")


def _read(path: Path, text: str) -> Reference:
    """The reference in a file; one of `DAMAGE` where it is not what was saved for the description `text`.

    The file is opened once (safetensors opens it twice): another process may replace it meanwhile.
    """
    with path.open("rb") as file:
        content = torch.load(file, map_location="cpu", weights_only=True)
    if content["format"] != _FORMAT or content["description"] != text:
        raise ValueError("it describes other statistics")
    if content["hash"] != tensors_hash(content["sums"]):  # torch.load checks no checksum
        raise ValueError("its tensors are not those that were written")
    return Reference(content["sums"], content["content"])


def _text(description: Mapping[str, Any]) -> str:
    return json.dumps(description, sort_keys=True)
