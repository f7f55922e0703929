"""Is csrc compiled once, kept safely, compiled anew when anything changes, and launched as torch expects?"""

import contextlib
import ctypes
import hashlib
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from litevae_kernels import nvrtc

from .. import children

KERNEL = "litevae::scale_kernel<float>"
SOURCE = """
#include "../factor.h"
namespace litevae {
template <typename T>
__global__ void scale_kernel(const T* x, T* y, long long n) {
    if (threadIdx.x < n) y[threadIdx.x] = FACTOR * x[threadIdx.x];
}
}
"""


def missing_compiler() -> str | None:
    try:
        importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        return f"needs NVRTC and cuda-bindings ({error})"
    return None


needs_compiler = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")


@pytest.fixture
def csrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sources with one operator, `scale`, and a cache folder of its own."""
    folder = tmp_path / "csrc"
    (folder / "scale").mkdir(parents=True)
    (folder / "factor.h").write_text("#define FACTOR 2\n")
    (folder / "scale" / "cuda.cu").write_text(SOURCE)
    monkeypatch.setattr(nvrtc, "sources", lambda: folder)
    monkeypatch.setenv(nvrtc.ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    nvrtc._digest_of_sources.cache_clear()
    yield folder
    nvrtc._digest_of_sources.cache_clear()


def entries(csrc: Path) -> list[Path]:
    return sorted((csrc.parent / "cache").iterdir())


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The architectures that were compiled for, one an entry."""
    counted: list[str] = []
    compile_kernels = nvrtc.compile_kernels

    def count(operator: str, kernels: tuple[str, ...], architecture: str) -> nvrtc.Compiled:
        counted.append(architecture)
        return compile_kernels(operator, kernels, architecture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "compile_kernels", count)
        yield counted


@needs_compiler
def test_compiles_once_and_reads_the_same_afterwards(csrc: Path) -> None:
    with compilations() as counted:
        first, second = (nvrtc.cached_kernel("scale", KERNEL, "sm_90") for _ in range(2))
    assert counted == ["sm_90"]
    assert first == second
    assert first.cubin.startswith(b"\x7fELF")
    assert len(first.symbols) == 1
    assert first.symbols[0].encode() in first.cubin


@needs_compiler
def test_whatever_the_machine_code_depends_on_makes_another_entry(csrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(path: Path, text: str) -> None:
        path.write_text(text)
        nvrtc._digest_of_sources.cache_clear()

    changes: list[Callable[[], object]] = [
        lambda: change(csrc / "factor.h", "#define FACTOR 3\n"),
        lambda: change(csrc / "scale" / "cuda.cu", SOURCE + "// more\n"),
        lambda: change(csrc / "scale" / "tile.h", "// new\n"),
        lambda: monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--fmad=false")),
    ]
    with compilations() as counted:
        for kernel, architecture in [
            (KERNEL, "sm_90"),
            (KERNEL, "sm_80"),
            (KERNEL.replace("float", "double"), "sm_80"),
        ]:
            nvrtc.cached_kernel("scale", kernel, architecture)
        for make in changes:
            make()
            nvrtc.cached_kernel("scale", KERNEL, "sm_90")
    assert len(counted) == len(entries(csrc)) == 3 + len(changes)
    monkeypatch.setattr(nvrtc, "_version", lambda: "99.9")
    assert not (csrc.parent / "cache" / f"scale-sm_90-{nvrtc._key('scale', KERNEL, 'sm_90')}.cubin").exists()


@needs_compiler
@pytest.mark.parametrize("damage", ["empty", "cut short", "a bit flipped", "another format", "of text"])
def test_a_damaged_entry_is_compiled_again(csrc: Path, damage: str) -> None:
    compiled = nvrtc.cached_kernel("scale", KERNEL, "sm_90")
    (path,) = entries(csrc)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    damaged = {
        "empty": b"",
        "cut short": whole[:-1],
        "a bit flipped": bytes(flipped),
        "another format": whole[1:],
        "of text": b"not found",
    }
    path.write_bytes(damaged[damage])
    with compilations() as counted:
        assert nvrtc.cached_kernel("scale", KERNEL, "sm_90") == compiled
    assert counted == ["sm_90"]
    assert path.read_bytes() == whole


@needs_compiler
def test_a_folder_that_cannot_be_written_costs_only_time(csrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (csrc.parent / "file").write_text("")
    monkeypatch.setenv(nvrtc.ENVIRONMENT_VARIABLE, str(csrc.parent / "file" / "cache"))
    assert nvrtc.cached_kernel("scale", KERNEL, "sm_90") == nvrtc.compile_kernels("scale", (KERNEL,), "sm_90")


@needs_compiler
def test_a_full_disk_leaves_nothing_behind(csrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert nvrtc.cached_kernel("scale", KERNEL, "sm_90").cubin
    assert entries(csrc) == []


@pytest.mark.slow
@needs_compiler
def test_several_processes_at_once(csrc: Path) -> None:
    """They all compile, write and read the same entry, again and again, from the same moment on."""
    program = f"""
import hashlib, pathlib, time
from litevae_kernels import nvrtc
folder = pathlib.Path({str(csrc)!r})
nvrtc.sources = lambda: folder
print("ready", flush=True)
while not (folder / "go").exists():
    time.sleep(0.001)
seen = set()
for round in range(10):
    for path in nvrtc.cache_folder().glob("*.cubin") if round % 3 == 2 else ():
        path.unlink(missing_ok=True)
    seen.add(hashlib.sha256(repr(nvrtc.cached_kernel("scale", {KERNEL!r}, "sm_90")).encode()).hexdigest())
print(*seen)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(nvrtc.__file__).parents[1])}
    command, options = [sys.executable, "-c", program], {"stdout": subprocess.PIPE, "text": True, "env": environment}
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(children.started(command, **options)) for _ in range(3)]
        assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 3
        (csrc / "go").touch()
        seen = {process.communicate(timeout=120)[0] for process in processes}
    compiled = nvrtc.cached_kernel("scale", KERNEL, "sm_90")
    assert seen == {hashlib.sha256(repr(compiled).encode()).hexdigest() + "\n"}
    assert [path.suffix for path in entries(csrc)] == [".cubin"]


@needs_compiler
def test_a_failed_compilation_shows_the_whole_log_and_keeps_nothing(csrc: Path) -> None:
    (csrc / "factor.h").write_text("#define FACTOR factor\n")
    with pytest.raises(RuntimeError) as failure:
        nvrtc.cached_kernel("scale", KERNEL, "sm_90")
    for part in (KERNEL, "sm_90", "NVRTC_ERROR_COMPILATION", 'identifier "factor" is undefined', "scale/cuda.cu(6)"):
        assert part in str(failure.value)
    with pytest.raises(RuntimeError, match="sm_12"):
        nvrtc.compile_kernels("scale", (KERNEL,), "sm_12")
    assert not (csrc.parent / "cache").exists()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in [("HOME", "/home/x"), ("XDG_CACHE_HOME", ""), (nvrtc.ENVIRONMENT_VARIABLE, "")]:
        monkeypatch.setenv(variable, value)
    assert nvrtc.cache_folder() == Path("/home/x/.cache/litevae_kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert nvrtc.cache_folder() == Path("/caches/litevae_kernels")
    monkeypatch.setenv(nvrtc.ENVIRONMENT_VARIABLE, "/kernels")
    assert nvrtc.cache_folder() == Path("/kernels")


@pytest.mark.parametrize("missing", ["cuda.core", "cuda.bindings.nvrtc"])
def test_without_cuda_core_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for cached in (nvrtc._core, nvrtc._nvrtc):
        cached.cache_clear()
    available, reason = nvrtc._status_of_device.__wrapped__()
    assert not available
    assert "cuda-core is not installed" in reason
    assert 'pip install "litevae[cuda]"' in reason


@needs_compiler
def test_without_a_gpu_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.core", reason="the package cuda-core is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    available, reason = nvrtc._status_of_device.__wrapped__()
    assert not available
    assert "torch sees no CUDA device" in reason


@needs_compiler
@pytest.mark.parametrize(
    ("driver", "capability", "available", "says"),
    [
        (99000, (9, 0), True, "on a GPU (sm_90)"),
        (11080, (9, 0), False, "is newer than the driver, which is of CUDA 11; update the driver, or pip install"),
        (99000, (3, 5), False, "does not compile for a GPU (sm_35), only for ["),
    ],
)
def test_status_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, driver: int, capability: tuple[int, int], available: bool, says: str
) -> None:
    pytest.importorskip("cuda.core", reason="the package cuda-core is not installed")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    bindings = SimpleNamespace(cuDriverGetVersion=lambda: (SimpleNamespace(value=0), driver))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", bindings)
    status = nvrtc._status_of_device.__wrapped__()
    assert status[0] == available
    assert says in status[1]


class RecordedCore:
    """Stands in for cuda.core and the driver: keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.Stream = SimpleNamespace(from_handle=lambda handle: f"stream {handle}")
        self.ObjectCode = SimpleNamespace(from_cubin=self.from_cubin)

    def Device(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(set_current=lambda: self.told.append(("set_current", index)))

    def LaunchConfig(self, grid: tuple[int, int, int], block: int) -> tuple[object, ...]:
        return grid, block

    def from_cubin(self, cubin: bytes) -> SimpleNamespace:
        self.told.append(("load", cubin))
        return SimpleNamespace(get_kernel=lambda symbol: f"function {symbol}")

    def launch(self, *arguments: object) -> None:
        self.told.append(("launch", *arguments))

    def cuThreadExchangeStreamCaptureMode(self, mode: object) -> tuple[SimpleNamespace, str]:
        self.told.append(("capture mode", mode))
        return SimpleNamespace(value=0, name="CUDA_SUCCESS"), "global"

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed")


def test_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads once a device, while CUDA graphs may be captured; runs on torch's stream; any thread gets a context."""
    core = RecordedCore()
    monkeypatch.setattr(nvrtc, "_core", lambda: core)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", core)
    monkeypatch.setattr(nvrtc, "_functions", {})
    monkeypatch.setattr(nvrtc, "_thread", threading.local())
    monkeypatch.setattr(
        nvrtc, "cached_kernel", lambda operator, kernel, arch: nvrtc.Compiled(arch.encode(), ("symbol",))
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext(core.told.append(("device", index))))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, index))
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 70 + index, raising=False)
    for cached in (nvrtc._stream, nvrtc._config):
        cached.cache_clear()
    x, n = torch.ones(3), ctypes.c_int64(3)

    def launch(index: int) -> list[tuple[object, ...]]:
        core.told = []
        nvrtc.launch("scale", KERNEL, (2, 1, 1), 32, (x, None, n), torch.device("cuda", index))
        return core.told

    launched = ("launch", "stream 71", ((2, 1, 1), 32), "function symbol", x.data_ptr(), 0, n)
    loaded = [("capture mode", "relaxed"), ("load", b"sm_91"), ("capture mode", "global")]
    assert launch(1) == [("set_current", 1), *loaded, launched]
    assert launch(1) == [launched]
    assert [step[0] for step in launch(0)] == ["device", "capture mode", "load", "capture mode", "launch"]
    thread = threading.Thread(target=lambda: told.extend(launch(1)))
    told: list[tuple[object, ...]] = []
    thread.start()
    thread.join()
    assert told == [("set_current", 1), launched]
    for cached in (nvrtc._stream, nvrtc._config):
        cached.cache_clear()


def test_the_sources_travel_with_the_package(tmp_path: Path) -> None:
    """What a wheel holds: every header and .cu, where nvrtc looks for them when csrc is not beside the package."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    repository = Path(nvrtc.__file__).parents[1]
    if not (repository / "pyproject.toml").exists():
        pytest.skip("needs the repository")
    build = "import setuptools; setuptools.setup()"
    command = [sys.executable, "-W", "ignore", "-c", build, "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run([*command, "build_py", "--build-lib", str(tmp_path)], cwd=repository, check=True, timeout=120)
    program = "from litevae_kernels import nvrtc; print(nvrtc.sources())"
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    packaged = tmp_path / "litevae_kernels" / "_csrc"
    assert Path(found.stdout.strip()).resolve() == packaged.resolve()
    names = {
        path.relative_to(repository / "csrc") for kind in ("*.h", "*.cu") for path in (repository / "csrc").rglob(kind)
    }
    assert {path.relative_to(packaged) for path in packaged.rglob("*.*")} == names
