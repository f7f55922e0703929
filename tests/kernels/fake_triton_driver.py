"""A Triton driver without a GPU: kernels are compiled for one, "loaded", and launched into a list.

Everything up to the driver is what runs on a GPU: Triton's compiler, its caches, `CompiledKernel` and its launches.
"""

import os
from types import SimpleNamespace
from typing import Any, NamedTuple

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

assert os.environ.get("TRITON_INTERPRET") != "1", "the interpreter launches nothing"


class Launched(NamedTuple):
    kernel: str
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]  # as a launcher gets them: pointers as integers or tensors, constants included


launched: list[Launched] = []
loaded: list[str] = []


class _Driver:
    def __init__(self, architecture: int) -> None:
        self.target = GPUTarget("cuda", architecture, 32)
        limits = {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32}
        self.utils = SimpleNamespace(load_binary=self.load_binary, get_device_properties=lambda device: limits)

    def load_binary(self, name: str, cubin: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        loaded.append(name)
        return 1, 2, 0, 0, 1024  # module, function, registers, spills, most threads

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        def launch(x: int, y: int, z: int, stream: int, function: int, packed: Any, *rest: Any) -> None:
            launched.append(Launched(metadata.name, (x, y, z), rest[3:]))  # after launch_metadata and two hooks

        return launch

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def install(architecture: int = 90) -> None:
    """From now on this process launches into `launched`. Tensors may be those of a CPU."""
    driver.set_active(_Driver(architecture))
