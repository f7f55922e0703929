"""How does a public function reach its operator? At the least cost on the host, and also inside torch.func.

PyTorch cannot differentiate an operator of torch.library in forward mode nor inside torch.func (grad, vmap, jvp, ...).
There the reference runs instead: plain PyTorch, which every transform takes apart.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

Result = TypeVar("Result")


def inside_transform(backend: str | None, *tensors: Tensor | None) -> bool:
    """Whether torch.func or forward-mode differentiation is at work, where the reference alone can run.

    Raises RuntimeError where another backend was asked for.
    """
    if torch.compiler.is_compiling():
        return False
    if not torch._C._are_functorch_transforms_active() and not _have_tangents(tensors):
        return False
    if backend not in (None, "reference"):
        raise RuntimeError(
            f"backend {backend!r} cannot run inside torch.func or with forward-mode tangents: PyTorch does not take "
            "them through custom operators; leave backend=None there, and plain PyTorch runs"
        )
    return True


def call(
    operator: Callable[..., Result],
    run: Callable[..., Result],
    tensors: tuple[Tensor | None, ...],
    *arguments: Any,
) -> Result:
    """operator(*arguments), or its implementation `run` itself where PyTorch's dispatcher would only take time (8 us).

    `tensors` are those among the arguments.
    """
    if torch.compiler.is_compiling() or not _has_nothing_to_dispatch(tensors):
        return operator(*arguments)
    return run(*arguments)


def _has_nothing_to_dispatch(tensors: tuple[Tensor | None, ...]) -> bool:
    """No gradient to record, no mode, trace or profiler to tell, no subclass to ask, no pending negation to do."""
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() or torch.autograd._profiler_enabled():
        return False
    records = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in (Tensor, Parameter) or tensor.is_neg() or (records and tensor.requires_grad):
            return False
    return True


def _have_tangents(tensors: tuple[Tensor | None, ...]) -> bool:
    if forward_ad._current_level < 0:  # outside forward_ad.dual_level()
        return False
    return any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
