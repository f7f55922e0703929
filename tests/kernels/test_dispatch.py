"""Do torch.func and forward mode get the right derivatives, and does a call that needs no gradient stay visible?"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from litevae_kernels import dispatch, haar_dwt2d
from litevae_kernels.backends import ENVIRONMENT_VARIABLE
from litevae_kernels.testing import sample_calls

CALLS = sample_calls(None, dtype=torch.float64, size=(5, 6))


@pytest.fixture(params=CALLS)
def function_of_x(request: pytest.FixtureRequest) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """An operator's result, flattened, as a function of its first input alone; and that input."""
    function, (x, *others) = CALLS[request.param]

    def of_x(x: Tensor) -> Tensor:
        result = function(x, *others)
        return result if isinstance(result, Tensor) else torch.cat([level.flatten() for level in result])

    return of_x, x


Case = tuple[Callable[[Tensor], Tensor], Tensor]


def test_torch_func_grad_equals_autograd(function_of_x: Case) -> None:
    function, x = function_of_x
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(function(leaf).sin().sum(), leaf)
    torch.testing.assert_close(torch.func.grad(lambda y: function(y).sin().sum())(x), expected)


def test_vmap_equals_a_loop(function_of_x: Case) -> None:
    function, x = function_of_x
    several = torch.stack([x, 2 * x.flip(0), x.cos()])
    expected = torch.stack([function(one) for one in several])
    torch.testing.assert_close(torch.func.vmap(function)(several), expected)
    last = several.movedim(0, -1)  # mapped over the innermost axis: not dense in any memory format
    torch.testing.assert_close(torch.func.vmap(function, in_dims=-1)(last), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own rules for forward mode
def test_forward_mode_equals_a_difference_quotient(function_of_x: Case) -> None:
    function, x = function_of_x
    direction, step = x.cos(), 1e-6
    expected = (function(x + step * direction) - function(x - step * direction)) / (2 * step)
    _, derivative = torch.func.jvp(function, (x,), (direction,))
    torch.testing.assert_close(derivative, expected, atol=1e-8, rtol=1e-6)
    with forward_ad.dual_level():
        dual = function(forward_ad.make_dual(x, direction))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, derivative)


def test_a_named_backend_says_why_it_cannot() -> None:
    with pytest.raises(RuntimeError, match=r"backend 'cpu' cannot run inside torch\.func"):
        torch.func.grad(lambda x: haar_dwt2d(x, backend="cpu")[0].sum())(torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("grad_mode", [False, True])
def test_calls_without_gradients_are_seen_by_dispatch_modes(function_of_x: Case, grad_mode: bool) -> None:
    """Fake tensors, FLOP counters and the like need to meet the operator, not what it is made of."""
    function, x = function_of_x
    seen = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func.namespace)
            return func(*args, **(kwargs or {}))

    with torch.set_grad_enabled(grad_mode), Seen():
        result = function(x)
    assert seen.count("litevae_kernels") == 1
    assert not result.requires_grad


def test_calls_without_gradients_are_seen_by_the_profiler_and_by_traces(function_of_x: Case) -> None:
    function, x = function_of_x
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function(x)
    assert sum(event.name.startswith("litevae_kernels::") for event in profile.events()) == 1
    graph = make_fx(function)(x).graph
    assert sum("litevae_kernels" in str(node.target) for node in graph.nodes) == 1


def test_a_pending_negation_is_done_first(function_of_x: Case) -> None:
    function, x = function_of_x
    negative = torch._neg_view(x)
    assert negative.is_neg()
    torch.testing.assert_close(function(negative), function((-x).clone()))


def test_a_subclass_is_asked(function_of_x: Case) -> None:
    class Counted(Tensor):
        calls = 0

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            cls.calls += 1
            plain = tree_map_only(Counted, lambda one: one.plain, (args, kwargs or {}))
            return func(*plain[0], **plain[1])

    function, x = function_of_x
    wrapped = Tensor._make_wrapper_subclass(Counted, x.shape, dtype=x.dtype)
    wrapped.plain = x
    torch.testing.assert_close(function(wrapped), function(x))
    assert Counted.calls > 0


def test_calls_with_gradients_are_seen_by_modes_and_the_profiler(function_of_x: Case) -> None:
    """Where nothing looks, a torch.autograd.Function records the gradient."""
    function, x = function_of_x
    leaf, seen = x.clone().requires_grad_(), []

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Seen():
        result = function(leaf)
    assert sum(name.startswith("litevae_kernels") for name in seen) == 1
    assert result.requires_grad
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function(leaf)
    assert sum(event.name.startswith("litevae_kernels::") for event in profile.events()) == 1


@pytest.mark.parametrize("operator", ["group_norm_silu", "smc_weight"])
def test_a_batch_of_gradients_equals_a_loop(operator: str) -> None:
    """Autograd's own vmap hands tensors over that have no memory."""
    function, (x, *others) = CALLS[operator]
    leaf = x.clone().requires_grad_()
    result = function(leaf, *others)
    grads = torch.stack([result.detach(), result.detach().cos()])
    (batched,) = torch.autograd.grad(result, leaf, grads, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(result, leaf, grad, retain_graph=True)[0] for grad in grads]
    torch.testing.assert_close(batched, torch.stack(one_by_one))


def test_forward_mode_over_a_gradient(function_of_x: Case) -> None:
    """The tangent of a gradient's own input goes on, which an operator of torch.library would lose."""
    function, x = function_of_x
    leaf = x.clone().requires_grad_()
    result = function(leaf)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones_like(result), result.detach())
        (gradient,) = torch.autograd.grad(result, leaf, dual, retain_graph=True)
        tangent = forward_ad.unpack_dual(gradient).tangent
    (expected,) = torch.autograd.grad(result, leaf, result.detach())  # the gradient is linear in its input
    torch.testing.assert_close(tangent, expected)


def test_an_operator_without_the_fastest_backend_runs_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment said before."""

    def room_of(requested: str | None = None) -> str:
        return dispatch._compute("conv2d_add", lambda module, x: module.__name__, requested, (torch.ones(1),))

    for name in ("", "reference"):  # an empty one is none
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, name)
        assert room_of() == "litevae_kernels.conv2d_add.reference"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cpu")
    with pytest.raises(RuntimeError, match="LITEVAE_KERNELS_BACKEND 'cpu' cannot run conv2d_add, which does not have"):
        room_of()
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    assert room_of() == "litevae_kernels.conv2d_add.reference"
    with pytest.raises(RuntimeError, match="backend 'cpu' cannot run conv2d_add"):
        room_of("cpu")


def with_gradient(function: Callable[[Tensor], object]) -> object:
    return function(torch.ones(1, 1, 4, 4, requires_grad=True))


def with_fake_tensors(function: Callable[[Tensor], object]) -> object:
    with FakeTensorMode():
        return function(torch.ones(1, 1, 4, 4))


PATHS = {
    "plain": lambda function: function(torch.ones(1, 1, 4, 4)),
    "gradient": with_gradient,
    "fake": with_fake_tensors,
    "func": lambda function: torch.func.vmap(function)(torch.ones(2, 1, 1, 4, 4)),
    "compile": lambda function: torch.compile(function, backend="eager")(torch.ones(1, 1, 4, 4)),
    "make_fx": lambda function: make_fx(function)(torch.ones(1, 1, 4, 4)),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("unknown", "kind"), [("gpu", ValueError), (0, TypeError)])
def test_an_unknown_backend_is_refused_on_every_path(path: str, unknown: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"backend must be one of 'triton', .*, got {unknown!r}"):
        PATHS[path](lambda x: haar_dwt2d(x, backend=unknown))  # type: ignore[arg-type]
