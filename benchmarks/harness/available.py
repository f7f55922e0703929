"""Which rows this machine can measure: every function returns the reason why not, or ""."""

import importlib
import importlib.util
import os
import shutil

import torch

from benchmarks.harness.measure import DEVICE
from litevae_kernels import backends
from litevae_kernels.precision import emulates_bfloat16


def missing_package(package: str) -> str:
    return "" if importlib.util.find_spec(package) else f"{package} is not installed; pip install {package}"


def missing_compiler() -> str:
    """What torch.compile lacks."""
    candidates = (os.environ.get("CXX", "g++"), "g++", "clang++")
    found = DEVICE.type == "cuda" or any(map(shutil.which, candidates))
    return "" if found else "torch.compile needs a C++ compiler; install g++"


def missing_import(package: str) -> str:
    """As `missing_package`, for one that can be installed and still fail to import."""
    missing = missing_package(package)
    if not missing:
        try:
            importlib.import_module(package)
        except ImportError as error:
            return f"{package} is installed, but importing it fails: {error}"
    return missing


def missing_backend(backend: str, device: str = DEVICE.type) -> str:
    """Why an operator's backend is not worth timing on tensors of `device` (the interpreter of Triton is not)."""
    status = backends()[backend]
    if not status.available:
        return status.reason
    own_device = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}.get(backend, device)
    return "" if own_device == device else f"the backend runs on {own_device} tensors, these are on {device}"


def emulated(dtype: torch.dtype, device: str = DEVICE.type) -> str:
    """Whether convolutions and matrix products in `dtype` are only emulated.

    Without AVX-512 (or bfloat16 units) a CPU converts bfloat16 number by number: a decoder takes minutes. The
    operators of this library are not concerned: they load bfloat16 and compute in float32 on every CPU.
    """
    emulates = dtype == torch.bfloat16 and emulates_bfloat16(device)
    return "this CPU only emulates bfloat16; --all-rows measures it" if emulates else ""
