"""How a public function reaches the backend that computes it: directly, as a PyTorch operator, or inside torch.func.

PyTorch cannot differentiate an operator of torch.library in forward mode nor inside torch.func (grad, vmap, jvp, ...).
There the reference runs: plain PyTorch, which supports every transform.
"""

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from litevae_kernels import checks
from litevae_kernels.backends import MODULES, choose_backend
from litevae_kernels.capture import allows_loading

Operator = Callable[..., Any]  # torch.ops.litevae_kernels.<name>.default
_library = torch.library.Library("litevae_kernels", "FRAGMENT")


# A room, and the function(module, *arguments) that computes the operator with a backend's module in it.
Implementation = tuple[str, Callable[..., Any]]
_implementations: dict[Operator, Implementation] = {}


def define(
    room: str,
    schema: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    gradient: Callable[..., Any] | None = None,
    save: Callable[..., Any] | None = None,
) -> Operator:
    """Registers an operator with PyTorch; `schema` ends in the parameter `str? backend`.

    Args:
        room: folder of the operator, which holds a module for every backend.
        function: `function(module, *arguments)` without `backend`; the first argument is a tensor or list of tensors.
        fake: `fake(*arguments)`, for torch.compile: empty results of the right shape, dtype and memory format.
        gradient, save: as `backward` and `setup_context` of torch.library.register_autograd.
    """
    name = schema[: schema.index("(")]
    qualified_name = f"litevae_kernels::{name}"
    _library.define(schema)
    operator: Operator = getattr(torch.ops.litevae_kernels, name).default
    implementation = _implementations[operator] = (room, function)
    # CompositeExplicitAutograd: one entry for every device. The backend is chosen inside, invisible to any trace.
    _library.impl(name, lambda *given: _compute(implementation, given[-1], given[:-1]), "CompositeExplicitAutograd")
    torch.library.register_fake(qualified_name, lambda *given: fake(*given[:-1]), lib=_library)
    if gradient is not None:
        torch.library.register_autograd(qualified_name, gradient, setup_context=save, lib=_library)
    return operator


def run(operator: Operator, backend: str | None, *arguments: Any) -> Any:
    """`operator(*arguments, backend)`, past PyTorch's dispatcher where that would only take time (8 us).

    Raises:
        TypeError, ValueError: no such backend.
        RuntimeError: the backend cannot run, or not inside torch.func and with forward-mode tangents.
    """
    if backend is not None:
        checks.check_choice("backend", backend, tuple(MODULES))
    if torch.compiler.is_compiling():
        return operator(*arguments, backend)
    if torch._C._are_functorch_transforms_active() or _have_tangents(arguments):
        if backend not in (None, "reference"):
            raise RuntimeError(
                f"backend {backend!r} cannot run inside torch.func or with forward-mode tangents: PyTorch does not "
                "take them through custom operators; leave backend=None there, and plain PyTorch runs"
            )
        return _compute(_implementations[operator], "reference", arguments)
    if _needs_dispatcher(arguments):
        return operator(*arguments, backend)
    return _compute(_implementations[operator], backend, arguments)


def _compute(implementation: Implementation, backend: str | None, arguments: tuple[Any, ...]) -> Any:
    first = arguments[0][0] if type(arguments[0]) is list else arguments[0]
    room, function = implementation
    chosen = choose_backend(backend, first.device.type, room)
    if chosen == "triton":
        with allows_loading():
            return function(_module(room, chosen), *arguments)
    return function(_module(room, chosen), *arguments)


@functools.cache
def _module(room: str, backend: str) -> ModuleType:
    return importlib.import_module(f"litevae_kernels.{room}.{MODULES[backend]}")


def _needs_dispatcher(arguments: Sequence[Any]) -> bool:
    """Whether there is a gradient to record, an observing mode, trace or profiler, a subclass or a lazy negation."""
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() or torch.autograd._profiler_enabled():
        return True
    return _has_special_tensor(arguments, torch.is_grad_enabled())


def _has_special_tensor(values: Sequence[Any], records: bool) -> bool:
    for value in values:
        kind = type(value)
        if kind is Tensor or kind is Parameter:
            if value.is_neg() or (records and value.requires_grad):
                return True
        elif _has_special_tensor(value, records) if kind is list else isinstance(value, Tensor):
            return True
    return False


def _have_tangents(arguments: tuple[Any, ...]) -> bool:
    if forward_ad._current_level < 0:  # outside forward_ad.dual_level()
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in _tensors(arguments))


def _tensors(arguments: tuple[Any, ...]) -> Iterator[Tensor]:
    for argument in arguments:
        for value in argument if isinstance(argument, list) else (argument,):
            if isinstance(value, Tensor):
                yield value
