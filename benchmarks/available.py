"""Which rows can be measured here and, if not, what is missing? Each function returns the reason, or "" if nothing is.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses   (any stage)
"""

from __future__ import annotations

import importlib.util
import os
import shutil

from benchmarks.measure import DEVICE
from litevae_kernels import backends


def missing_package(package: str) -> str:
    return "" if importlib.util.find_spec(package) else f"{package} is not installed; pip install {package}"


def missing_compiler() -> str:
    """What torch.compile lacks."""
    candidates = (os.environ.get("CXX", "g++"), "g++", "clang++")
    found = DEVICE.type == "cuda" or any(map(shutil.which, candidates))
    return "" if found else "torch.compile needs a C++ compiler; install g++"


def missing_backend(backend: str) -> str:
    """Why an operator's backend is not worth timing on this run's device (the interpreter of Triton is not)."""
    status = backends()[backend]
    if not status.available:
        return status.reason
    device = {"cpu": "cpu", "triton": "cuda"}.get(backend, DEVICE.type)
    return "" if device == DEVICE.type else f"the backend runs on {device} tensors, this run is on {DEVICE.type}"
