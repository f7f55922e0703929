"""A GPU driver for Triton on a machine without a GPU: it keeps every launch, and runs nothing.

    driver = RecordingDriver()
    with driver.active():
        triton_backend.group_norm_silu(x, 32, None, None, 1e-6, None)
    driver.launches

Tensors may be on the CPU or on the device "meta", which has no memory: kernels are made for their dtypes, sizes and
alignment alone. Kernels must not be interpreted: TRITON_INTERPRET is unset, or 0, before the first import of Triton.
What a driver compiled stays in Triton's caches, so a process has one driver.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime.driver import driver

LARGEST_SHARED_BYTES = 227 * 1024  # of a block of threads on sm_90
STREAM = 70  # the current one


class Launch(NamedTuple):
    """What the driver was told: `compiled` is one object for all launches of the same machine code."""

    compiled: CompiledKernel
    grid: tuple[int, int, int]
    stream: int
    arguments: dict[str, Any]  # by the names of the kernel's parameters, constants among them

    @property
    def kernel(self) -> str:
        return str(self.compiled.src.fn.__name__)


class Uncompiled(CompiledKernel):
    """A kernel without machine code."""

    def __init__(self, source: Any, options: dict[str, Any]) -> None:
        self.src, self.name, self.hash, self.kernel = source, source.name, "", b""
        self.metadata = SimpleNamespace(name=source.name, shared=0, **options)
        self.packed_metadata: tuple[()] = ()
        self.metadata_group: dict[str, str] = {}
        self.module = self.function = self._run = None


class RecordingDriver:
    """The part of Triton's driver that launches use.

    compiles: whether to make machine code of the kernels, which takes a second for each new one.
    keeps: False to count launches alone, as cheaply as can be.
    """

    def __init__(self, architecture: int = 90, compiles: bool = False, keeps: bool = True) -> None:
        self.launches: list[Launch] = []
        self.launched = 0  # how many, also of those that are not kept
        self.compiles, self.keeps = compiles, keeps
        self.target = GPUTarget("cuda", architecture, 32)
        self.utils = SimpleNamespace(
            load_binary=lambda name, code, shared_bytes, device: (name, name, 32, 0, 1024),
            get_device_properties=lambda device: {"max_shared_mem": LARGEST_SHARED_BYTES},
        )
        self._compile = triton.compiler.compile
        self._kernels: dict[int, CompiledKernel] = {}  # by the identity of the source

    @contextmanager
    def active(self) -> Iterator[None]:
        """Triton uses this driver for a while."""
        before = driver._active, triton.compiler.compile
        driver._active, triton.compiler.compile = self, self._kernel_of
        try:
            yield
        finally:
            driver._active, triton.compiler.compile = before

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return STREAM

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        kernel, names = self._kernels[id(source)], source.fn.arg_names

        def launch(x: int, y: int, z: int, stream: int, *arguments: Any) -> None:
            self.launched += 1
            if self.keeps:
                # Triton gives its function, two kinds of metadata and two hooks before the kernel's own arguments.
                self.launches.append(Launch(kernel, (x, y, z), stream, dict(zip(names, arguments[5:], strict=True))))

        return launch

    def _kernel_of(self, source: Any, target: Any = None, options: Any = None, **rest: Any) -> CompiledKernel:
        if self.compiles:
            kernel = self._compile(source, target=target, options=options, **rest)
        else:
            kernel = Uncompiled(source, options)
        self._kernels[id(kernel.src)] = kernel
        return kernel
