"""How a run's state is stored: atomic writes, safe loading, the newest checkpoint that is whole.

A checkpoint is a dict, everything that step `step` needs from the steps before it. Every run has

    format      version of this layout
    step        finished steps
    data        where each process is in its stream of samples; empty for samples that are addressed by number
    progress    `Progress.state`: the losses since the last log line
    best        None, or the step and the score of the best evaluation so far

and what its kind of training adds (of the autoencoder: litevae/training/snapshot.py). No random generator is among
it: crops, noise and dropout are functions of the seed and of the step.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevae_kernels.files import replacing

Checkpoint = dict[str, Any]
_FORMAT = 2
_OWN_KEYS = {"format", "step", "data", "progress", "best"}
_PATTERN = re.compile(r"step-(\d+)\.pt")
# What torch.load raises for a file that is empty, cut off, altered, or holds more than plain tensors and values. A disk
# that does not answer (OSError) is no damage: the file may be whole, and a run must not go back because of it.
_DAMAGE = (RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile)


class CheckpointError(Exception):
    """There is no checkpoint to load, or it does not fit; the message names the folder or the first mismatch."""


class SaveError(OSError):
    """A checkpoint could not be written (a full disk, say); the ones before it are as they were."""


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, file) of every checkpoint in the folder, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.pt") if (match := _PATTERN.fullmatch(path.name))]
    return sorted(found)


def save_checkpoint(folder: Path, content: Checkpoint, keep: int) -> Path:
    """Write step-XXXXXX.pt atomically, then delete all but the newest `keep` up to this step and the best.

    Those of later steps are deleted too: they are damaged, or the run would not have come back to before them.

    `content` is a checkpoint without its `format`. After a SaveError every older checkpoint is still there.
    """
    step, best = content["step"], content["best"]
    path = folder / f"step-{step:06d}.pt"
    try:
        with replacing(path) as temporary:
            torch.save({"format": _FORMAT, **content}, temporary)
    except (OSError, RuntimeError) as error:  # PyTorch's writer turns the system's error into a RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise SaveError(
            f"cannot write the checkpoint {path}: {reason}; the older ones in {folder} are whole: "
            "make room, then go on with --resume"
        ) from error
    found = checkpoints(folder)
    kept = [file for at, file in found if at <= step][-keep:]
    for at, file in found:
        if file not in kept and not (best is not None and at == best["step"]):
            file.unlink()
    return path


def load_newest_checkpoint(folder: Path, keys: Collection[str] = ()) -> Checkpoint:
    """The newest checkpoint that can be read, on the CPU; a damaged one is warned about by name and passed over.

    `keys`: what the run's kind of training adds; a checkpoint without one of them is damaged too.
    Loading executes nothing from the file (weights_only).

    Raises:
        CheckpointError: no checkpoint, or none that is whole.
    """
    found = checkpoints(folder)
    for _, path in reversed(found):
        try:
            return _load(path, keys)
        except _DAMAGE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"damaged checkpoint {path} is passed over: {reason[:200]}", stacklevel=2)
    what = "holds no checkpoint" if not found else f"holds no whole checkpoint ({len(found)} damaged)"
    raise CheckpointError(f"{folder} {what}: there is nothing to resume")


def load_state(module: torch.nn.Module, state: dict[str, Tensor], where: str, what: str = "model") -> None:
    """Load weights, strictly; the first name or shape that does not fit is a CheckpointError."""
    own = module.state_dict()
    for name in [*own, *state]:
        if name not in own or name not in state:
            rule = "missing" if name in own else "not a parameter of it"
            raise CheckpointError(f"{where} does not fit the {what}: {name} is {rule}")
        if own[name].shape != state[name].shape:
            raise CheckpointError(
                f"{where} does not fit the {what}: {name} must have shape {tuple(own[name].shape)}, "
                f"got {tuple(state[name].shape)}"
            )
    module.load_state_dict(state)


def _load(path: Path, keys: Collection[str]) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums that torch.save writes
        altered = archive.testzip()
    if altered is not None:
        raise ValueError(f"the checksum of {altered} is wrong")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError("not a LiteVAE training checkpoint")
    if content["format"] != _FORMAT:
        raise ValueError(f"checkpoint format {content['format']}, this version reads {_FORMAT}")
    if not set(content) >= {*_OWN_KEYS, *keys}:
        raise ValueError("not a LiteVAE training checkpoint")
    return content
