"""Files of pretrained weights: where torch hub keeps them, and what is wrong with one.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What torch.load raises for a file that is absent, empty, cut off, or holds more than plain tensors and values.
DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile)


class WeightsError(Exception):
    """The weights of a pretrained network cannot be had; the message is one line and names the way out."""


def hub_folder() -> Path:
    """Where torch hub keeps what it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def read_weights(path: Path) -> Any:
    """What a file of plain tensors holds; one of `DAMAGE` where it cannot be read."""
    return torch.load(path, map_location="cpu", weights_only=True)


def mismatch(weights: Any, expected: Mapping[str, Tensor], ignored: tuple[str, ...] = ()) -> str | None:
    """The first thing that is wrong with a file's content.

    Args:
        weights: what `read_weights` returned.
        expected: tensors of the right shapes, of which all must be there.
        ignored: how the names of what else may be there begin.
    """
    if not isinstance(weights, dict):
        return f"it holds a {type(weights).__name__} instead of tensors by name"
    for key, tensor in expected.items():
        found = weights.get(key)
        if not isinstance(found, Tensor):
            return f"{key} is missing"
        if found.shape != tensor.shape:
            return f"{key} must have the shape {tuple(tensor.shape)}, got {tuple(found.shape)}"
        if not found.isfinite().all():
            return f"{key} holds a NaN or an infinity"
    surplus = [key for key in weights if key not in expected and not str(key).startswith(ignored)]
    return f"it has {surplus[0]} besides" if surplus else None


def reason(error: BaseException) -> str:
    """An error in half a line. What PyTorch says of a foreign file is a page, about trusting it."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, pickle.UnpicklingError):
        return "it is not a file of plain tensors"
    return str(error).strip().partition("\n")[0] or type(error).__name__
