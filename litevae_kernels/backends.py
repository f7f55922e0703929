"""The backends: which of them work on this machine, why the others do not, and which one a call takes.

A backend is a module of the same name in every operator's room (`reference.py`, `cpu.py`, `cuda.py`,
`triton_backend.py`) with the functions of `reference.py`. Nothing is imported, built or initialised before the first
call.
"""

import functools
import importlib.util
import os
from typing import NamedTuple

import torch

from litevae_kernels import checks, native, nvrtc

ENVIRONMENT_VARIABLE = "LITEVAE_KERNELS_BACKEND"
MODULES = {"triton": "triton_backend", "cuda": "cuda", "cpu": "cpu", "reference": "reference"}
# os.environ's own dictionary and key: os.environ.get encodes and decodes, which takes 0.7 us of every call.
_variables, _variable = (
    (os.environ._data, os.environ.encodekey(ENVIRONMENT_VARIABLE))
    if hasattr(os.environ, "_data")
    else (os.environ, ENVIRONMENT_VARIABLE)
)
FASTEST = {"cuda": ("triton", "cuda"), "cpu": ("cpu",)}  # by type of device; the reference runs on any


class BackendStatus(NamedTuple):
    """Whether a backend works on this machine; `reason` says what it runs on, or why it cannot."""

    available: bool
    reason: str


def backends() -> dict[str, BackendStatus]:
    """Every backend by name, fastest first, with whether it works here and why (not).

    Example:
        >>> backends()["reference"].available
        True
    """
    return {name: _reported(name) for name in MODULES}


def choose_backend(requested: str | None, device: str, room: str | None = None) -> str:
    """The requested backend, the environment's, else the fastest for tensors on `device` that the operator has.

    `room` is the operator's folder; None stands for an operator that has every backend. Raises ValueError for an
    unknown name or level of the CPU and RuntimeError, with the reason, for a backend that cannot run.
    """
    source, name = "backend", requested
    if name is None:
        source, name = ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE) or None
    if name is None:
        for fastest in FASTEST.get(device, ()):
            if _has(room, fastest) and _status(fastest).available:
                return fastest
        return "reference"
    checks.check_choice(source, name, tuple(MODULES))
    if not _has(room, name):
        raise RuntimeError(f"{source} {name!r} cannot run {room}, which does not have that backend; leave it unset")
    status = _status(name)
    if not status.available:
        raise RuntimeError(f"{source} {name!r} cannot run on this machine: {status.reason}")
    if name == "cpu" and device != "cpu":
        raise RuntimeError(f"{source} 'cpu' cannot run on a {device} tensor; move it with .cpu()")
    if name == "cuda" and device != "cuda" and not (device == "cpu" and nvrtc.host_launch):
        raise RuntimeError(f"{source} 'cuda' cannot run on a {device} tensor; move it with .cuda()")
    if name == "triton" and device != "cuda" and not _interprets_triton():
        raise RuntimeError(
            f"{source} 'triton' cannot run on a {device} tensor; move it with .cuda(), or set TRITON_INTERPRET=1 "
            "before the first use to run the kernels, slowly, on the CPU"
        )
    return name


def environment() -> object:
    """What stands for `LITEVAE_KERNELS_BACKEND` now: equal whenever the variable is."""
    return _variables.get(_variable)


def _reported(name: str) -> BackendStatus:
    try:
        return _status(name)
    except ValueError as error:  # what LITEVAE_KERNELS_CPU_LEVEL asks for
        return BackendStatus(False, str(error))


@functools.cache
def _has(room: str | None, backend: str) -> bool:
    return room is None or importlib.util.find_spec(f"litevae_kernels.{room}.{MODULES[backend]}") is not None


def _status(name: str) -> BackendStatus:
    if name == "cuda":  # not cached, because a test may replace its launcher
        return BackendStatus(*nvrtc.status())
    return _lasting_status(name)


@functools.cache
def _lasting_status(name: str) -> BackendStatus:
    if name == "cpu":
        return BackendStatus(*native.status())
    if name == "triton":
        return _triton_status()
    return BackendStatus(True, f"PyTorch {torch.__version__}, any device")


def _triton_status() -> BackendStatus:
    if importlib.util.find_spec("triton") is None:
        return BackendStatus(False, "the package triton is not installed; pip install triton (Linux: x86-64, aarch64)")
    try:
        import triton
    except (ImportError, OSError) as error:
        return BackendStatus(False, f"the package triton does not import ({error}); install it again")
    if _interprets_triton():
        return BackendStatus(True, f"triton {triton.__version__}, interpreted on the CPU (TRITON_INTERPRET=1)")
    if not torch.cuda.is_available():
        return BackendStatus(False, f"triton {triton.__version__} is installed, but torch sees no CUDA device")
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    return BackendStatus(True, f"triton {triton.__version__} on {name} (sm_{major}{minor})")


def _interprets_triton() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
