"""How does a public function reach its operator? At the least cost on the host, and also inside torch.func.

PyTorch cannot differentiate an operator of torch.library in forward mode nor inside torch.func (grad, vmap, jvp, ...).
There the reference runs instead: plain PyTorch, which every transform takes apart.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

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


def call(operator: Callable[..., Result], differentiable: tuple[Tensor | None, ...], *arguments: Any) -> Result:
    """operator(*arguments), past autograd's Python entry (5 us) where none of the tensors needs a gradient."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and _need_gradients(differentiable)):
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _need_gradients(tensors: tuple[Tensor | None, ...]) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _have_tangents(tensors: tuple[Tensor | None, ...]) -> bool:
    if forward_ad._current_level < 0:  # outside forward_ad.dual_level()
        return False
    return any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
