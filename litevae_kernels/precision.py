"""float32 that is float32, or TF32, whose 10 bits of mantissa cuDNN's convolutions have unless told otherwise.

And bfloat16 that the CPU computes, or emulates.
"""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether convolutions and matrix products of float32 CUDA tensors may round their inputs to TF32, for a while."""
    switches: Any = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = allowed
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def emulates_bfloat16(device_type: str) -> bool:
    """Whether convolutions and matrix products in bfloat16 are slower than in float32: a CPU without instructions."""
    if device_type != "cpu":
        return False
    return not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def warn_where_emulated(dtype: torch.dtype | None, device_type: str) -> None:
    """A UserWarning, once in a process, where convolutions in `dtype` are slower than in float32."""
    if dtype == torch.bfloat16 and emulates_bfloat16(device_type):
        warnings.warn(
            "this CPU has no instructions for bfloat16: convolutions emulate it, which takes several times as long as "
            "float32 (7 times was measured); use float32",
            stacklevel=3,
        )
