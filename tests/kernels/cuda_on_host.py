"""How do the tests run the CUDA C++ of csrc without a GPU? g++ builds each kernel for the host, fibers act as threads.

`launch` takes what `litevae_kernels.nvrtc.host_launch` is given. cuda_on_host.cpp says what it detects: wrong
addresses, races, missing and divergent barriers. Undefined arithmetic and array indices are looked for as well.
"""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

HERE = Path(__file__).parent
RUNTIME = HERE / "cuda_on_host.cpp"
CSRC = HERE.parents[1] / "csrc"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-ffp-contract=off"]
KERNEL_FLAGS = [
    "-O1",
    "-fno-tree-sra",  # which would take accesses of 16 bytes apart
    "-g1",
    "-gdwarf-4",  # binutils confuse the files of DWARF 5
    "-fsanitize=thread",  # every access calls cuda_on_host.cpp, which stands in for ThreadSanitizer's runtime
    "-fsanitize=bounds,shift,signed-integer-overflow,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
]
KERNEL = """
#include "{header}"
#include "{source}"
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT const char* kinds() {{ return cuda_on_host::kinds(&{name}); }}
EXPORT void* shared_anchor() {{ return &cuda_on_host::shared_anchor; }}
EXPORT void call(void** arguments) {{ cuda_on_host::call(&{name}, arguments); }}
"""


def missing() -> str | None:
    """Why no kernel can be built here; None if one can."""
    return None if shutil.which(COMPILER) else f"no C++ compiler {COMPILER} to build the CUDA kernels for the host"


def launch(operator: str, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[object]) -> None:
    """Runs the kernel of csrc/<operator>/cuda.cu; raises RuntimeError on whatever a GPU would not forgive."""
    launch_source(CSRC / operator / "cuda.cu", kernel, grid, block, arguments)


def launch_source(
    source: Path, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[object]
) -> None:
    library = _library(source, kernel)
    kinds = library.kinds().decode()
    if len(arguments) != len(kinds):
        raise RuntimeError(f"{kernel} takes {len(kinds)} arguments, got {len(arguments)}")
    if not (1 <= block <= 1024 and 1 <= grid[0] < 2**31 and all(1 <= side < 2**16 for side in grid[1:])):
        raise RuntimeError(f"{kernel}: a GPU has no grid of {grid} blocks of {block} threads")
    values, ranges = [], []
    for index, (kind, argument) in enumerate(zip(kinds, arguments, strict=True)):
        value = _value(argument)
        if value is None or ("P" if isinstance(value, ctypes.c_void_p) else value._type_) != kind:
            raise RuntimeError(f"{kernel}: argument {index} must be of kind {kind!r}, got {argument!r}")
        values.append(value)
        if isinstance(argument, Tensor):
            assert argument.device.type == "cpu", argument.device
            ranges += [index, argument.data_ptr(), _extent(argument), argument.element_size()]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    place = ctypes.c_void_p()
    error = _runtime().cuda_on_host_run(
        library.call,
        ctypes.c_void_p(library.shared_anchor()),
        pointers,
        (ctypes.c_uint * 3)(*grid),
        block,
        (ctypes.c_int64 * len(ranges))(*ranges),
        len(ranges) // 4,
        ctypes.byref(place),
    )
    if error is not None:
        where = _line_of(library, place.value) if place.value else source.name
        raise RuntimeError(f"{kernel}: {error.decode()}, at {where}")


def _value(argument: object) -> ctypes._SimpleCData | None:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return argument if isinstance(argument, ctypes._SimpleCData) else None


def _extent(tensor: Tensor) -> int:
    """Bytes from the first element to the last, included."""
    if tensor.numel() == 0:
        return 0
    steps = ((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (sum(steps) + 1) * tensor.element_size()


@functools.cache
def _runtime() -> ctypes.PyDLL:
    """A PyDLL keeps Python's lock: autograd runs backwards in threads of its own, the fibers are for one at a time."""
    library = ctypes.PyDLL(str(_build(RUNTIME.read_text(), ["-O2"], [])))
    library.cuda_on_host_run.restype = ctypes.c_char_p
    return library


@functools.cache
def _library(source: Path, kernel: str) -> ctypes.PyDLL:
    header = HERE / "cuda_on_host.h"
    text = KERNEL.format(header=header, source=source, name=kernel)
    library = ctypes.PyDLL(str(_build(text, KERNEL_FLAGS, _included(header, source), Path(_runtime()._name))))
    library.kinds.restype = ctypes.c_char_p
    library.shared_anchor.restype = ctypes.c_void_p
    return library


def _included(*sources: Path) -> list[Path]:
    """The sources and what they include with quotes, directly or not."""
    found, waiting = [], [source.resolve() for source in sources]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.append(path)
            waiting += [(path.parent / name).resolve() for name in re.findall(r'#include "(.+?)"', path.read_text())]
    return found


def _build(text: str, flags: Sequence[str], included: Sequence[Path], *linked: Path) -> Path:
    """The shared library built from `text`, now or by an earlier run from the same text and the same files."""
    content = [re.sub('#include ".*/', '#include "', text), *[path.read_text() for path in included]]
    names = [path.name for path in linked]
    key = hashlib.sha256(repr((content, names, FLAGS, flags, _compiler_version())).encode()).hexdigest()[:32]
    result = _folder() / f"{key}.so"
    if not result.exists():
        with tempfile.TemporaryDirectory(dir=_folder()) as folder:
            path, built = Path(folder, "kernel.cpp"), Path(folder, "built")
            path.write_text(text)
            compile_only: list[str | Path] = [COMPILER, *FLAGS, *flags, "-c", path, "-o", f"{built}.o"]
            compiled = subprocess.run(compile_only, capture_output=True, text=True)
            if compiled.returncode != 0:
                raise RuntimeError(f"{COMPILER} cannot build this for the host:\n{text}\n{compiled.stderr}")
            # Without the flags: -fsanitize would link the compiler's own runtime, where `linked` takes its place.
            subprocess.run([COMPILER, "-shared", f"{built}.o", *linked, "-o", f"{built}.so"], check=True)
            os.replace(f"{built}.so", result)  # atomic: another process may be building the same
    return result


@functools.cache
def _compiler_version() -> str:
    return subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.gettempdir(), f"litevae_cuda_on_host_{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to somebody else; set TMPDIR to a folder of your own")
    return folder


def _line_of(library: ctypes.PyDLL, address: int) -> str:
    """`address` in terms of the source, innermost inlined function first."""
    base = next(
        int(line.split("-")[0], 16)
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(library._name)
    )
    command = ["addr2line", "-i", "-e", library._name, hex(address - base - 1)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    places = [Path(line.split()[0]).name for line in lines]
    return ", from ".join(place for place in places if not place.startswith(("kernel.cpp", "cuda_on_host.h")))
