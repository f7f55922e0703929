"""The first call of a kernel while a CUDA graph is captured: loading its module then needs a mode of its own."""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED


def allows_loading() -> Any:
    """A context in which this thread may load kernels; it costs nothing unless the current stream is captured.

    torch.cuda.graph captures in a mode that makes cuModuleLoadData an error, and the capture with it.
    """
    captured = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    return _relaxed() if captured else nullcontext()


@contextmanager
def _relaxed() -> Iterator[None]:
    mode = ctypes.c_int(RELAXED)
    _exchange(mode)  # which puts the mode of before into `mode`
    try:
        yield
    finally:
        _exchange(mode)


def _exchange(mode: ctypes.c_int) -> None:
    result = _driver().cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))
    if result != 0:
        raise RuntimeError(
            f"CUDA's driver answered {result} to cuThreadExchangeStreamCaptureMode; call the operator once with the "
            "same shapes before the CUDA graph is captured"
        )


@functools.cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")
