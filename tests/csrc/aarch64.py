"""Runs the tests of the backend `cpu` on csrc built for aarch64, on another Linux machine, with an emulator.

    python -m tests.csrc.aarch64 [pytest's arguments]

The tests and torch run on this machine; each call of a kernel is sent, with the tensors it points to, to a process of
qemu-user (aarch64_server.cpp), and the results come back. So the tests compare aarch64's results as they compare
any: with float64, within their own tolerances. This file is the command, and the plugin of pytest that sends the calls.
"""

import ctypes
import functools
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch

from csrc.build import CSRC, FLAGS
from litevae_kernels import native

from .another_build import compile_library
from .levels import run_tests

COMPILER, EMULATOR, SYSROOT = "aarch64-linux-gnu-g++", "qemu-aarch64", "/usr/aarch64-linux-gnu"
SERVER_VARIABLE = "LITEVAE_KERNELS_CROSS_SERVER"  # the command that the plugin starts


def main() -> int:
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed; apt-get install g++-aarch64-linux-gnu qemu-user (Debian and Ubuntu)")
    with tempfile.TemporaryDirectory() as folder:
        library, server = Path(folder, "_native_aarch64.so"), Path(folder, "server")
        compile_library(COMPILER, [*FLAGS, "-fopenmp", "-Wall", "-Wextra"], library)
        subprocess.run([COMPILER, *FLAGS, Path(__file__).with_name("aarch64_server.cpp"), "-o", server], check=True)
        environment = {
            SERVER_VARIABLE: shlex.join([EMULATOR, "-L", SYSROOT, str(server), str(library)]),
            "PYTHONPATH": os.pathsep.join([str(CSRC.parent), os.environ.get("PYTHONPATH", "")]),
        }
        return run_tests(["-p", "tests.csrc.aarch64", *sys.argv[1:]], environment)


class RemoteLibrary:
    """Has the functions of the loaded library, which run in the server's process."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.tensors: dict[int, int] = {}  # bytes of the tensors whose address was asked for, by address
        self.calls = 0
        self.lock = threading.RLock()

    def __getattr__(self, function: str) -> Any:
        return functools.partial(self.call, function)

    def note_address(self, tensor: torch.Tensor, address: int) -> None:
        if tensor.numel() > 0:
            steps = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
            with self.lock:
                self.tensors[address] = (steps + 1) * tensor.element_size()

    def call(self, function: str, argument: bytes | int = 0) -> int:
        fields, number = (argument, 0) if isinstance(argument, bytes) else (b"", argument)
        with self.lock:
            words = enumerate(struct.unpack(f"{len(fields) // 8}q", fields))
            pointers = [(8 * index, word) for index, word in words if word in self.tensors]
            request = [_text(function.encode()), _numbers(number), _text(fields), _numbers(len(pointers))]
            for place, address in pointers:
                size = self.tensors[address]
                request += [_numbers(place, size), ctypes.string_at(address, size)]
            assert self.process.stdin is not None
            self.process.stdin.write(b"".join(request))
            self.process.stdin.flush()
            (returned,) = struct.unpack("q", self._read(8))
            for _, address in pointers:
                ctypes.memmove(address, self._read(self.tensors[address]), self.tensors[address])
            self.tensors.clear()
            self.calls += 1
        return int(returned)

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise RuntimeError(f"the server has ended with code {self.process.wait()}")
        return data


def _numbers(*numbers: int) -> bytes:
    return struct.pack(f"{len(numbers)}q", *numbers)


def _text(text: bytes) -> bytes:
    return _numbers(len(text)) + text


def pytest_configure(config: Any) -> None:
    """Puts the remote library in the place of the one that is loaded here."""
    config.remote = remote = RemoteLibrary(shlex.split(os.environ[SERVER_VARIABLE]))
    data_ptr = torch.Tensor.data_ptr

    def noted_data_ptr(tensor: torch.Tensor) -> int:
        address = data_ptr(tensor)
        remote.note_address(tensor, address)
        return address

    torch.Tensor.data_ptr = noted_data_ptr  # type: ignore[assignment,method-assign]
    native.library = lambda: remote  # type: ignore[assignment]
    native._path = lambda: Path("_native_aarch64.so")


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    terminalreporter.write_line(f"{config.remote.calls} calls of {native.status()[1]}")


if __name__ == "__main__":
    sys.exit(main())
