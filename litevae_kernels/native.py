"""The library of CPU kernels that is built from csrc: where it is, whether it works, and how it is called.

`_native` is built when the package is installed (csrc/build.py). It has a plain C interface and is loaded with ctypes,
so it does not depend on torch's version.
"""

import ctypes
import functools
import importlib.util
import os
import struct
import threading
from pathlib import Path

import torch

from litevae_kernels import checks

# Path of another build of the library, such as tests/csrc/sanitize.py's.
ENVIRONMENT_VARIABLE = "LITEVAE_KERNELS_NATIVE"
LEVEL_VARIABLE = "LITEVAE_KERNELS_CPU_LEVEL"  # a lower level of vector instructions than the CPU's highest
LEVELS = ("baseline", "avx2", "avx512", "avx512_bf16")  # csrc/cpu_level.h
BUILD_LOG = Path(__file__).with_name("_native_build.log")
# csrc/scalar_types.h
DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3, torch.uint8: 4}
INTERFACE = 6  # version of the C functions; csrc/library.cpp has the same number, raise both with every change
GRAIN_SIZE = 32768  # elements, as in ATen's parallel_for
_once = threading.Lock()


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library. Call only where `status()` says that it is available."""
    return ctypes.CDLL(str(_path()))


def status() -> tuple[bool, str]:
    """Whether the C++ kernels work; the reason names the library and the level it runs at, or says why not.

    Raises ValueError where LITEVAE_KERNELS_CPU_LEVEL asks for a level that this CPU does not have.
    """
    path = _path()
    if path is None:
        reason = "the C++ kernels were not built when litevae was installed"
        if BUILD_LOG.exists():
            reason += f" ({BUILD_LOG.read_text().strip()})"
        return False, f"{reason}; install a C++17 compiler such as g++ and install litevae again"
    try:
        library()
    except OSError as error:
        way_out = f"unset {ENVIRONMENT_VARIABLE}" if ENVIRONMENT_VARIABLE in os.environ else "install litevae again"
        return False, f"{path.name} does not load ({error}); {way_out}"
    if not hasattr(library(), "litevae_native_interface") or library().litevae_native_interface() != INTERFACE:
        return False, f"{path.name} was built from another version of this code; install litevae again"
    with _once:
        level = _set_level()
    threads = "OpenMP" if library().litevae_native_openmp() else "one thread: built without OpenMP"
    return True, f"{path.name}, level {level}, {threads}"


def levels() -> tuple[str, ...]:
    """The levels that this CPU and this build have, lowest first."""
    return tuple(name for index, name in enumerate(LEVELS) if library().litevae_native_has_level(index))


@functools.cache
def _set_level() -> str:
    """Once in a process: a kernel of another thread must not see its level change."""
    available = levels()
    level = os.environ.get(LEVEL_VARIABLE) or available[-1]
    checks.check_choice(LEVEL_VARIABLE, level, available, "unset it for the last of them, the highest of this CPU")
    library().litevae_native_limit_level(LEVELS.index(level))
    return level


def threads_for(elements: int) -> int:
    """torch's own thread count, or one thread where there is too little to share."""
    return torch.get_num_threads() if elements >= GRAIN_SIZE else 1


def call(function: str, layout: str, *values: int | float) -> None:
    """Calls a C function that takes a pointer to one struct, whose fields have 8 bytes and struct's `layout`.

    One packed struct makes a call cost 1 us; ctypes would add 0.2 us for every argument.
    """
    getattr(library(), function)(struct.pack(layout, *values))


def _path() -> Path | None:
    if ENVIRONMENT_VARIABLE in os.environ:
        return Path(os.environ[ENVIRONMENT_VARIABLE])
    spec = importlib.util.find_spec("litevae_kernels._native")
    return Path(spec.origin) if spec is not None and spec.origin else None
