"""The CUDA C++ of csrc on a GPU: compiled by NVRTC on first use, cached on disk, launched through cuda-core.

csrc/<op>/cuda.cu -> one kernel's cubin for the device's architecture -> a launch on torch's current stream

This needs neither nvcc nor a host compiler: NVRTC and cuda-bindings come with every CUDA build of torch, and the extra
`cuda` adds cuda-core. Nothing is imported, compiled or initialised before the first launch.
"""

import contextlib
import functools
import hashlib
import importlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from litevae_kernels.devices import on_device
from litevae_kernels.files import replacing, user_cache

ENVIRONMENT_VARIABLE = "LITEVAE_KERNELS_CACHE"
OPTIONS = ("--std=c++17",)
CXX_TYPES = {  # csrc/scalar_types.h
    torch.float64: "double",
    torch.float32: "float",
    torch.float16: "litevae::float16",
    torch.bfloat16: "litevae::bfloat16",
    torch.uint8: "litevae::uint8_t",
}
ENTRY_FORMAT = b"litevae kernel 1\n"

# Set by tests to a launcher that runs the kernels on CPU tensors, compiled for the host.
host_launch: Callable[[str, str, tuple[int, int, int], int, Sequence[Any]], None] | None = None

_lock = threading.Lock()
_functions: dict[tuple[str, str, int], Any] = {}
_thread = threading.local()


class Compiled(NamedTuple):
    """Machine code for one architecture, and the symbols of its kernels, in the order of the request."""

    cubin: bytes
    symbols: tuple[str, ...]


def launch(
    operator: str,
    kernel: str,
    grid: tuple[int, int, int],
    block: int,
    arguments: Sequence[Any],
    device: torch.device,
) -> None:
    """Runs a kernel of csrc/<operator>/cuda.cu on torch's current stream of `device`; does not wait for it.

    kernel: a C++ name expression, such as "litevae::smc_weight_fwd_kernel<float, float, litevae::bfloat16>".
    grid: blocks, each at least 1. block: threads.
    arguments: one for each parameter: a Tensor or None for a pointer, a ctypes scalar of exactly its type for the rest.

    The first launch of a kernel compiles it, or loads it from `cache_folder()`. Launches, including the first one, can
    be captured in a CUDA graph. Raises RuntimeError with NVRTC's log where the kernel does not compile.
    """
    if device.type == "cpu" and host_launch is not None:
        host_launch(operator, kernel, grid, block, arguments)
        return
    index = device.index
    with on_device(index):
        core = _core()
        _attach_thread(index)
        function = _functions.get((operator, kernel, index)) or _load(operator, kernel, index)
        stream = _stream(torch._C._cuda_getCurrentRawStream(index))
        core.launch(stream, _config(grid, block), function, *map(_value, arguments))


def status() -> tuple[bool, str]:
    """Whether the kernels can be compiled and launched on this machine; the reason says with what, or why not."""
    if host_launch is not None:
        return True, "csrc built for the host, on CPU tensors"
    return _status_of_device()


def cache_folder() -> Path | None:
    """Where compiled kernels are kept: LITEVAE_KERNELS_CACHE, else the user's cache folder (None without a home)."""
    return user_cache(ENVIRONMENT_VARIABLE, "litevae_kernels")


def sources() -> Path:
    """The folder csrc: inside an installed package, beside the package in a checkout."""
    inside = Path(__file__).with_name("_csrc")
    return inside if inside.is_dir() else Path(__file__).parents[1] / "csrc"


def compile_kernels(operator: str, kernels: Sequence[str], architecture: str) -> Compiled:
    """The kernels of csrc/<operator>/cuda.cu, for an architecture such as "sm_90". Needs no GPU and no driver."""
    nvrtc = _nvrtc()
    source = (sources() / operator / "cuda.cu").as_posix()
    program = _checked(nvrtc.nvrtcCreateProgram(f'#include "{source}"\n'.encode(), b"litevae.cu", 0, [], []))
    try:
        for kernel in kernels:
            _checked(nvrtc.nvrtcAddNameExpression(program, kernel.encode()))
        options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}")]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
            _checked(nvrtc.nvrtcGetProgramLog(program, log))
            raise RuntimeError(
                f"NVRTC {_version()} cannot compile {', '.join(kernels)} for {architecture} ({result.name}):\n"
                + log.rstrip(b"\0").decode()
            )
        cubin = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
        _checked(nvrtc.nvrtcGetCUBIN(program, cubin))
        symbols = tuple(_checked(nvrtc.nvrtcGetLoweredName(program, kernel.encode())).decode() for kernel in kernels)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Compiled(bytes(cubin), symbols)


def cached_kernel(operator: str, kernel: str, architecture: str) -> Compiled:
    """One kernel from the cache on disk, else compiled and kept there.

    Several processes may do this at once: files are replaced atomically. A damaged file is compiled again. If the
    folder cannot be written, every process compiles for itself.
    """
    folder = cache_folder()
    if folder is None:
        return compile_kernels(operator, (kernel,), architecture)
    path = folder / f"{operator}-{architecture}-{_key(operator, kernel, architecture)}.cubin"
    compiled = _read_entry(path)
    if compiled is None:
        compiled = compile_kernels(operator, (kernel,), architecture)
        _write_entry(path, compiled)
    return compiled


def _read_entry(path: Path) -> Compiled | None:
    """An entry is the format's name, a checksum of the rest, the kernel's symbol, a zero byte and the cubin."""
    try:
        entry = path.read_bytes()
    except OSError:
        return None
    start = len(ENTRY_FORMAT) + hashlib.sha256().digest_size
    if not entry.startswith(ENTRY_FORMAT) or entry[len(ENTRY_FORMAT) : start] != hashlib.sha256(entry[start:]).digest():
        return None
    symbol, _, cubin = entry[start:].partition(b"\0")
    return Compiled(cubin, (symbol.decode(),))


def _write_entry(path: Path, compiled: Compiled) -> None:
    (symbol,) = compiled.symbols
    content = symbol.encode() + b"\0" + compiled.cubin
    with contextlib.suppress(OSError), replacing(path) as temporary:  # a full disk, no permission
        temporary.write_bytes(ENTRY_FORMAT + hashlib.sha256(content).digest() + content)


def _key(operator: str, kernel: str, architecture: str) -> str:
    """A digest of everything that the machine code depends on."""
    parts = (_digest_of_sources(operator), kernel, architecture, _version(), *OPTIONS)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@functools.cache
def _digest_of_sources(operator: str) -> str:
    folder, digest = sources(), hashlib.sha256()
    for path in sorted([*folder.glob("*.h"), *(folder / operator).glob("*.h"), folder / operator / "cuda.cu"]):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _load(operator: str, kernel: str, index: int) -> Any:
    """The kernel's function on device `index`, which must be the current one."""
    with _lock:
        if (operator, kernel, index) not in _functions:
            major, minor = torch.cuda.get_device_capability(index)
            compiled = cached_kernel(operator, kernel, f"sm_{major}{minor}")
            driver = importlib.import_module("cuda.bindings.driver")
            # Loading may allocate memory, which only this mode allows while a thread captures a CUDA graph.
            relaxed = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            before = _checked(driver.cuThreadExchangeStreamCaptureMode(relaxed))
            try:
                code = _core().ObjectCode.from_cubin(compiled.cubin)
                _functions[operator, kernel, index] = code.get_kernel(compiled.symbols[0])
            finally:
                _checked(driver.cuThreadExchangeStreamCaptureMode(before))
        return _functions[operator, kernel, index]


def _attach_thread(index: int) -> None:
    """Sets the CUDA context of a thread that has not used the GPU yet, such as one of autograd's."""
    if not getattr(_thread, "attached", False):
        _core().Device(index).set_current()
        _thread.attached = True


def _value(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    return 0 if argument is None else argument


@functools.lru_cache(maxsize=4096)
def _config(grid: tuple[int, int, int], block: int) -> Any:
    return _core().LaunchConfig(grid=grid, block=block)


@functools.lru_cache(maxsize=4096)
def _stream(handle: int) -> Any:
    return _core().Stream.from_handle(handle)


@functools.cache
def _core() -> Any:
    core = importlib.import_module("cuda.core")
    # Before version 0.5 all of it was experimental.
    return core if hasattr(core, "launch") else importlib.import_module("cuda.core.experimental")


@functools.cache
def _nvrtc() -> Any:
    return importlib.import_module("cuda.bindings.nvrtc")


@functools.cache
def _version() -> str:
    _, major, minor = _nvrtc().nvrtcVersion()
    return f"{major}.{minor}"


def _checked(returned: tuple[Any, ...]) -> Any:
    """The value beside a CUDA result code of success."""
    result, *values = returned
    if result.value != 0:
        raise RuntimeError(f"CUDA answered {result.name}")
    return values[0] if values else None


@functools.cache
def _status_of_device() -> tuple[bool, str]:
    try:
        _core()
        core, nvrtc = f"cuda-core {importlib.import_module('cuda.core').__version__}", _nvrtc()
    except ModuleNotFoundError as error:
        return False, f'the package cuda-core is not installed ({error}); pip install "litevae[cuda]"'
    except (ImportError, OSError) as error:
        return False, f'the package cuda-core does not import ({error}); pip install --upgrade "litevae[cuda]"'
    if torch.version.cuda is None or not torch.cuda.is_available():
        return False, f"{core} is installed, but torch sees no CUDA device"
    try:
        _, architectures = nvrtc.nvrtcGetSupportedArchs()
    except RuntimeError as error:  # cuda-bindings looks for the library of CUDA's own major version
        suffix = "" if importlib.import_module("cuda.bindings").__version__.startswith("13") else "-cu12"
        return False, f"{core} finds no NVRTC ({error}); pip install nvidia-cuda-nvrtc{suffix}"
    driver = _checked(importlib.import_module("cuda.bindings.driver").cuDriverGetVersion()) // 1000
    if int(_version().partition(".")[0]) > driver:
        return False, (
            f"NVRTC {_version()} is newer than the driver, which is of CUDA {driver}; update the driver, or "
            f'pip install nvidia-cuda-nvrtc-cu{driver} "cuda-bindings=={driver}.*" and uninstall nvidia-cuda-nvrtc'
        )
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    if 10 * major + minor not in architectures:
        return False, f"NVRTC {_version()} does not compile for {name} (sm_{major}{minor}), only for {architectures}"
    return True, f"NVRTC {_version()}, {core} on {name} (sm_{major}{minor})"
