"""The current CUDA device while kernels are launched: their tensors', at no cost where it is already."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

_NOTHING: AbstractContextManager[None] = nullcontext()


def on_device(index: int) -> AbstractContextManager[Any]:
    """A context in which device `index` is the current one; nothing for -1, `Tensor.get_device()` on the CPU."""
    return _NOTHING if index < 0 or index == torch.cuda.current_device() else torch.cuda.device(index)
