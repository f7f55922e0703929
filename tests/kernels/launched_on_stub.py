"""Launches of the CUDA backend through the real cuda-core, on the driver of libcuda_stub.c, which writes them down.

Run by test_cuda_driver.py, with that driver in LD_LIBRARY_PATH. Prints JSON: what each part is to find in the record.
torch here has no CUDA: its current device and stream are stand-ins that do to the driver what torch's own do.
"""

import contextlib
import ctypes
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from litevae_kernels import capture, nvrtc
from litevae_kernels.testing import sample_calls

DRIVER = ctypes.CDLL("libcuda.so.1")
_thread = threading.local()  # current: the device that torch chose in this thread


@contextlib.contextmanager
def chosen_device(index: int) -> Iterator[None]:
    """As torch.cuda.device: asks the driver only for a device that is not the current one."""
    before = getattr(_thread, "current", 0)
    if index != before:
        DRIVER.stub_set_device(index)
    _thread.current = index
    try:
        yield
    finally:
        _thread.current = before
        if index != before:
            DRIVER.stub_set_device(before)


def stand_in() -> None:
    torch.cuda.device, torch.cuda.current_device = chosen_device, lambda: getattr(_thread, "current", 0)
    torch.cuda.get_device_capability = lambda index: (9, 0)
    torch._C._cuda_getCurrentRawStream = lambda index: (0, 71)[index]
    torch.cuda.is_initialized = torch.cuda.is_current_stream_capturing = lambda: True
    nvrtc.cached_kernel = lambda operator, kernel, architecture: nvrtc.Compiled(
        f"{operator} {architecture}".encode() + b"\0", (f"symbol of {kernel}",)
    )


def bytes_of(argument: Any) -> bytes:
    if argument is None or isinstance(argument, Tensor):
        return bytes(ctypes.c_void_p(None if argument is None else argument.data_ptr()))
    return bytes(argument)


def launch(
    operator: str, kernel: str, grid: tuple[int, int, int], block: int, arguments: Sequence[Any], index: int
) -> dict[str, Any]:
    """Launches, and says what the driver should have been told."""
    values = [bytes_of(argument) for argument in arguments]
    DRIVER.stub_parameters(len(values), (ctypes.c_int * len(values))(*map(len, values)))
    nvrtc.launch(operator, kernel, grid, block, arguments, torch.device("cuda", index))
    return {"grid": grid, "block": [block, 1, 1], "arguments": [value.hex() for value in values]}


def simple(index: int) -> dict[str, Any]:
    x = torch.ones(3)
    scalars = ctypes.c_int32(-5), ctypes.c_int64(2**40), ctypes.c_float(0.1), ctypes.c_double(0.1)
    return launch("scale", "scale_kernel<float>", (2, 3, 4), 96, (x, None, *scalars), index)


def operators() -> list[dict[str, Any]]:
    """Every launch of every operator, forward and backward, on device 1."""
    told: list[dict[str, Any]] = []

    def record(operator: str, kernel: str, grid: Any, block: int, arguments: Any) -> None:
        nvrtc.host_launch = None
        told.append(launch(operator, kernel, grid, block, arguments, 1))
        nvrtc.host_launch = record

    nvrtc.host_launch = record
    for call in sample_calls("cuda").values():
        call.results_and_gradients()
    nvrtc.host_launch = None
    return told


def main() -> None:
    stand_in()
    told = {"first": simple(0), "again": simple(0), "other device": simple(1)}
    thread = threading.Thread(target=lambda: told.update(thread=simple(0), thread_again=simple(0)))
    thread.start()
    thread.join()
    with capture.allows_loading():
        told["captured"] = launch("scale", "of a first call in a capture", (1, 1, 1), 32, (), 0)
    print(json.dumps({**told, "operators": operators()}))


if __name__ == "__main__":
    main()
