"""How a public function reaches the backend that computes it: directly, as a PyTorch operator, or inside torch.func.

PyTorch cannot differentiate an operator of torch.library in forward mode nor inside torch.func (grad, vmap, jvp, ...).
There the reference runs: plain PyTorch, which supports every transform.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from litevae_kernels import checks
from litevae_kernels.backends import MODULES, choose_backend, environment
from litevae_kernels.capture import allows_loading

Operator = Callable[..., Any]  # torch.ops.litevae_kernels.<name>.default
_library = torch.library.Library("litevae_kernels", "FRAGMENT")


class Implementation(NamedTuple):
    """What computes an operator where PyTorch's dispatcher would only take time."""

    room: str  # the operator's folder, which holds a module for every backend
    function: Callable[..., Any]  # function(module, *arguments), with a backend's module
    inference: Callable[..., Any]  # the same where nothing will ask for a gradient
    recorded: type[torch.autograd.Function] | None  # the same with its gradient


_implementations: dict[Operator, Implementation] = {}
_modules: dict[tuple[str, str | None, object, str], ModuleType] = {}


def define(
    room: str,
    schema: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    gradient: Callable[..., Any] | None = None,
    save: Callable[..., Any] | None = None,
    inference: Callable[..., Any] | None = None,
) -> Operator:
    """Registers an operator with PyTorch; `schema` ends in the parameter `str? backend`.

    Args:
        room: folder of the operator, which holds a module for every backend.
        function: `function(module, *arguments)` without `backend`; the first argument is a tensor or list of tensors.
        fake: `fake(*arguments)`, for torch.compile: empty results of the right shape, dtype and memory format.
        gradient, save: as `backward` and `setup_context` of torch.library.register_autograd.
        inference: as `function`, but may leave out what only the gradient reads.
    """
    name = schema[: schema.index("(")]
    qualified_name = f"litevae_kernels::{name}"
    _library.define(schema)
    operator: Operator = getattr(torch.ops.litevae_kernels, name).default
    # CompositeExplicitAutograd: one entry for every device. The backend is chosen inside, invisible to any trace.
    _library.impl(name, lambda *given: _compute(room, function, given[-1], given[:-1]), "CompositeExplicitAutograd")
    torch.library.register_fake(qualified_name, lambda *given: fake(*given[:-1]), lib=_library)
    recorded = None
    if gradient is not None and save is not None:
        torch.library.register_autograd(qualified_name, gradient, setup_context=save, lib=_library)
        recorded = _recorded(name, room, function, gradient, save)
    _implementations[operator] = Implementation(room, function, inference or function, recorded)
    return operator


def run(operator: Operator, backend: str | None, *arguments: Any) -> Any:
    """`operator(*arguments, backend)`, past PyTorch's dispatcher where that would only take time (8 us; 45 us with a
    gradient to record).

    Raises:
        TypeError, ValueError: no such backend.
        RuntimeError: the backend cannot run, or not inside torch.func and with forward-mode tangents.
    """
    if backend is not None:
        checks.check_choice("backend", backend, tuple(MODULES))
    if torch.compiler.is_compiling():
        return operator(*arguments, backend)
    implementation = _implementations[operator]
    if torch._C._are_functorch_transforms_active() or _have_tangents(arguments):
        if backend not in (None, "reference"):
            raise RuntimeError(
                f"backend {backend!r} cannot run inside torch.func or with forward-mode tangents: PyTorch does not "
                "take them through custom operators; leave backend=None there, and plain PyTorch runs"
            )
        return _compute(implementation.room, implementation.function, "reference", arguments)
    if _is_observed() or _has_special_tensor(arguments):
        return operator(*arguments, backend)
    if implementation.recorded is not None and torch.is_grad_enabled() and _requires_grad(arguments):
        return _record(implementation.recorded, backend, arguments)
    return _compute(implementation.room, implementation.inference, backend, arguments)


def _recorded(
    name: str, room: str, function: Callable[..., Any], gradient: Callable[..., Any], save: Callable[..., Any]
) -> type[torch.autograd.Function]:
    """The operator with its gradient; autograd sees a list of tensors one by one, after the list's length."""

    def forward(ctx: Any, length: int | None, *flat: Any) -> Any:
        given = flat if length is None else (list(flat[:length]), *flat[length:])
        output = _compute(room, function, given[-1], given[:-1])
        ctx.takes_list, ctx.returns_list = length is not None, type(output) is list
        save(ctx, given, output)
        return tuple(output) if ctx.returns_list else output

    def backward(ctx: Any, *grads: Any) -> Any:
        first, *others = gradient(ctx, list(grads)) if ctx.returns_list else gradient(ctx, *grads)
        return None, *(first if ctx.takes_list else (first,)), *others

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    recorded: Any = torch.autograd.function.FunctionMeta(name, (torch.autograd.Function,), members)
    return recorded


def _record(recorded: type[torch.autograd.Function], backend: str | None, arguments: tuple[Any, ...]) -> Any:
    first = arguments[0]
    if type(first) is list:
        return recorded.apply(len(first), *first, *arguments[1:], backend)
    return recorded.apply(None, *arguments, backend)


def _compute(room: str, function: Callable[..., Any], backend: str | None, arguments: tuple[Any, ...]) -> Any:
    first = arguments[0]
    device = (first[0] if type(first) is list else first).device.type
    module = _modules.get((room, backend, environment(), device)) or _choose(room, backend, device)
    if module.__name__.endswith(MODULES["triton"]):
        with allows_loading():
            return function(module, *arguments)
    return function(module, *arguments)


def _choose(room: str, backend: str | None, device: str) -> ModuleType:
    """The chosen backend's module; remembered unless it is an emulator of a GPU, which may come and go."""
    chosen = choose_backend(backend, device, room)
    module = importlib.import_module(f"litevae_kernels.{room}.{MODULES[chosen]}")
    if device == "cuda" or chosen in ("cpu", "reference"):
        _modules[room, backend, environment(), device] = module
    return module


def _is_observed() -> bool:
    """Whether a mode, a trace or the profiler has to see the operator, and not what it is made of."""
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()
    )


def _has_special_tensor(values: Sequence[Any]) -> bool:
    """Whether there is a subclass, a lazy negation, or a tensor without memory (a batch of them in autograd's vmap)."""
    for value in values:
        kind = type(value)
        if kind is Tensor or kind is Parameter:
            if value.is_neg() or not torch._C._has_storage(value):
                return True
        elif _has_special_tensor(value) if kind is list else isinstance(value, Tensor):
            return True
    return False


def _requires_grad(arguments: tuple[Any, ...]) -> bool:
    return any(tensor.requires_grad for tensor in _tensors(arguments))


def _have_tangents(arguments: tuple[Any, ...]) -> bool:
    if forward_ad._current_level < 0:  # outside forward_ad.dual_level()
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in _tensors(arguments))


def _tensors(arguments: tuple[Any, ...]) -> Iterator[Tensor]:
    for argument in arguments:
        for value in argument if isinstance(argument, list) else (argument,):
            if isinstance(value, Tensor):
                yield value
