"""float32 that is float32, or TF32, whose 10 bits of mantissa cuDNN's convolutions have unless told otherwise."""

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
