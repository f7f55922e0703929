"""Is it silu(group_norm(cat(x, skip))): against PyTorch in float64, on every backend, and with all its derivatives?"""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import gradcheck, gradgradcheck

from litevae_kernels import group_norm_silu
from litevae_kernels.formats import arithmetic_dtype, memory_format_of
from litevae_kernels.group_norm_silu import cuda, ops

from .samples import SIZES, TOLERANCES, assert_close, sample_layouts

# The interpreter computes exp(-z) in NumPy, which warns where a float32 overflows to infinity, as it should.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")

EPS = 1e-6
HALF_AND_SINGLE = [torch.float32, torch.float16, torch.bfloat16]
FORMATS = [torch.contiguous_format, torch.channels_last]

# Channels of x and of skip, and groups: group sizes 1, 2, 3, 4, 5, 6, 8, 12, 15, 16 and all; groups that straddle.
CHANNELS = [
    (1, 0, 1), (7, 0, 1), (16, 0, 16), (48, 0, 24), (96, 0, 32), (128, 0, 32), (160, 0, 32), (192, 0, 32),
    (256, 0, 32), (384, 0, 32), (512, 0, 32), (16, 16, 32), (32, 16, 24), (5, 4, 3), (1, 5, 2), (64, 96, 32),
    (320, 160, 32), (13, 11, 1),
]  # fmt: skip


def values(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


def inputs(
    channels: int,
    skip_channels: int = 0,
    size: tuple[int, int] = (6, 10),
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
    batch: int = 2,
    mean: float = 0.0,
    std: float = 1.0,
) -> dict[str, Tensor | None]:
    """x, skip (None for no channels), weight and bias."""
    x, skip = (
        (mean + std * values(batch, count, *size, device=device)).to(dtype, memory_format=memory_format)
        for count in (channels, skip_channels)
    )
    weight, bias = (values(channels + skip_channels + i, device=device)[i:].to(dtype) for i in (0, 1))
    return {"x": x, "skip": skip if skip_channels else None, "weight": weight, "bias": bias}


def exact_group_norm_silu(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, skip: Tensor | None
) -> Tensor:
    whole = x if skip is None else torch.cat([x, skip], dim=1)
    if weight is None:  # PyTorch's own backward fails with a bias and no weight
        weight = whole.new_ones(whole.shape[1])
    return F.silu(torch.group_norm(whole, num_groups, weight, bias, EPS))


def check_against_torch(
    backend: str, num_groups: int, given: dict[str, Tensor | None], scale: float = 2.0, std: float = 1.0
) -> Tensor:
    """Compares the result and the gradients of all inputs with PyTorch's in float64; returns the result.

    The gradients of x and skip are as large as 1 / `std`, the standard deviation of both.
    """
    given = {name: tensor for name, tensor in given.items() if tensor is not None}
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in given.items()}
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in given.items()}
    result = group_norm_silu(num_groups=num_groups, eps=EPS, backend=backend, **leaves)
    expected = exact_group_norm_silu(num_groups=num_groups, **({"weight": None, "bias": None, "skip": None} | exact))
    x = leaves["x"]
    assert result.dtype == x.dtype
    assert result.is_contiguous(memory_format=memory_format_of(x))
    assert_close(result, expected, scale)
    grad = torch.linspace(-1, 1, result.numel(), device=x.device).view(result.shape).to(x.dtype)
    gradients = torch.autograd.grad(result, list(leaves.values()), grad)
    exact_gradients = torch.autograd.grad(expected, list(exact.values()), grad.double())
    for name, gradient, exact_gradient in zip(leaves, gradients, exact_gradients, strict=True):
        assert gradient.dtype == leaves[name].dtype, name
        # The gradients of the parameters are sums over the batch and all pixels, which cancel.
        assert_close(gradient, exact_gradient, scale * (20 if name in ("weight", "bias") else max(1 / std, 1)))
    return result.detach()


@pytest.mark.parametrize(("channels", "skip_channels", "num_groups"), CHANNELS)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
def test_equals_torch(
    backend: str, device: str, channels: int, skip_channels: int, num_groups: int, memory_format: torch.memory_format
) -> None:
    if backend == "triton" and device == "cpu" and memory_format == torch.contiguous_format and 96 < channels < 512:
        pytest.skip("a program a group: Triton's interpreter is slow")
    dtype = torch.bfloat16 if memory_format == torch.channels_last else torch.float32
    batch = 1 if channels >= 64 else 2
    given = inputs(channels, skip_channels, (4, 6), dtype, device, memory_format, batch)
    check_against_torch(backend, num_groups, given)


@pytest.mark.parametrize("size", [*SIZES, (8, 8), (32, 32)])
@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("skip_channels", [0, 2])
def test_every_size(
    backend: str, device: str, size: tuple[int, int], memory_format: torch.memory_format, skip_channels: int
) -> None:
    check_against_torch(
        backend,
        2,
        inputs(4, skip_channels, size, torch.float32, device, memory_format),
        scale=4,
    )


@pytest.mark.parametrize("dtype", [torch.float64, *HALF_AND_SINGLE], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
def test_every_dtype(backend: str, device: str, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    for channels, skip_channels, num_groups in [(18, 0, 6), (16, 8, 12)]:
        check_against_torch(
            backend, num_groups, inputs(channels, skip_channels, (5, 8), dtype, device, memory_format), scale=4
        )


@pytest.mark.parametrize(("mean", "std"), [(1000.0, 1.0), (-2.3, 0.5), (0.0, 1e-4), (3.0, 1e4)])
@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("size", [(13, 10), (67, 40)])
def test_statistics_of_any_mean(
    backend: str, device: str, mean: float, std: float, memory_format: torch.memory_format, size: tuple[int, int]
) -> None:
    given = inputs(4, 2, size, torch.float32, device, memory_format, mean=mean, std=std)
    # A mean of 1000 is itself rounded to 3e-5 of a standard deviation.
    check_against_torch(backend, 2, given, scale=40 if mean == 1000.0 else 4, std=std)


def test_constant_groups(backend: str, device: str) -> None:
    """The variance is zero: what is left is silu(bias), and finite gradients."""
    given = inputs(6, 0, (5, 7), torch.float32, device, mean=3.7, std=0.0)
    x, weight, bias = (given[name].requires_grad_() for name in ("x", "weight", "bias"))
    result = group_norm_silu(x, 3, weight, bias, backend=backend)
    expected = F.silu(bias)[:, None, None].expand(2, 6, 5, 7)
    torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)  # a unit of 3.7 in float32 is 2e-4 after rstd 1000
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(result.sum(), (x, weight, bias)))


def test_statistics_that_the_operator_returns(backend: str, device: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        given = inputs(32, 16, (6, 9), dtype, device)
        x, skip = given["x"], given["skip"]
        _, mean, rstd = ops.group_norm_silu(x, 24, given["weight"], given["bias"], EPS, skip, backend)
        groups = torch.cat([x, skip], dim=1).double().view(2, 24, -1)
        assert mean.dtype == rstd.dtype == arithmetic_dtype(dtype)
        assert_close(mean, groups.mean(2))
        assert_close(rstd, (groups.var(2, correction=0) + EPS).rsqrt())
        assert not mean.requires_grad


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE, ids=str)
def test_every_layout(backend: str, device: str, dtype: torch.dtype) -> None:
    """Also of two inputs that lie differently: the result lies as x does."""
    layouts = dict(sample_layouts(dtype, device))
    others = list(reversed(layouts.values()))
    for (name, x), skip in zip(layouts.items(), others, strict=True):
        check_against_torch(backend, 3, {"x": x})
        both = {"x": x, "skip": 2 * skip.detach(), "weight": values(6, device=device).to(dtype)}
        result = check_against_torch(backend, 2, both)
        channels_last = "channels_last" in name and "slice" not in name
        assert result.is_contiguous(memory_format=torch.channels_last) == channels_last, name


@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
def test_gradient_of_any_layout(backend: str, device: str, memory_format: torch.memory_format) -> None:
    given = inputs(5, 4, (6, 7), torch.float32, device, memory_format)
    x, skip, weight, bias = (given[name].requires_grad_() for name in ("x", "skip", "weight", "bias"))
    result = group_norm_silu(x, 3, weight, bias, skip=skip, backend=backend)
    for grad in (
        torch.ones((), device=device).expand(result.shape),
        values(2, 9, 7, 6, dtype=torch.float32, device=device).mT,
        values(2, 6, 7, 9, dtype=torch.float32, device=device).permute(0, 3, 1, 2),
    ):
        leaves = (x, skip, weight, bias)
        dense = torch.autograd.grad(result, leaves, grad.contiguous(), retain_graph=True)
        strided = torch.autograd.grad(result, leaves, grad, retain_graph=True)
        torch.testing.assert_close(strided, dense)


@pytest.mark.parametrize("has_weight", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("size", [(5, 4), (70, 66)])
def test_parameters_may_be_absent(
    backend: str, device: str, has_weight: bool, has_bias: bool, size: tuple[int, int]
) -> None:
    given = inputs(3, 3, size, torch.float32, device, batch=1)
    absent = {name for name, present in (("weight", has_weight), ("bias", has_bias)) if not present}
    check_against_torch(backend, 2, given | dict.fromkeys(absent), scale=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("parameter_dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_parameters_of_another_dtype(
    backend: str, device: str, dtype: torch.dtype, parameter_dtype: torch.dtype
) -> None:
    given = inputs(6, 3, (5, 8), torch.float32, device)
    given |= {name: given[name].to(parameter_dtype) for name in ("weight", "bias")}
    given |= {name: given[name].to(dtype) for name in ("x", "skip")}
    # A gradient of a float64 parameter is as exact as the arithmetic, which follows x.
    inexact = parameter_dtype == torch.float64 and dtype != torch.float64
    check_against_torch(backend, 3, given, scale=1e7 if inexact else 2)


@pytest.mark.parametrize("skip_channels", [0, 2])
@pytest.mark.parametrize("affine", [False, True])
def test_derivatives(backend: str, device: str, skip_channels: int, affine: bool) -> None:
    """First and second, of x, skip, weight and bias, in float64; one group straddles."""
    given = inputs(4, skip_channels, (3, 2), device=device)
    names = [name for name, tensor in given.items() if tensor is not None and (affine or name in ("x", "skip"))]
    leaves = [given[name].requires_grad_() for name in names]

    def function(*leaves: Tensor) -> Tensor:
        return group_norm_silu(num_groups=2, backend=backend, **dict(zip(names, leaves, strict=True)))

    assert gradcheck(function, leaves, fast_mode=backend == "triton")
    assert gradgradcheck(function, leaves, fast_mode=True)


def test_second_derivative_equals_torch(backend: str, device: str) -> None:
    given = inputs(5, 4, (6, 7), device=device)
    leaves = {name: tensor.requires_grad_() for name, tensor in given.items() if tensor is not None}

    def penalty(result: Tensor) -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(result.sin().sum(), list(leaves.values()), create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), list(leaves.values()))

    actual = penalty(group_norm_silu(num_groups=3, backend=backend, **leaves))
    expected = penalty(exact_group_norm_silu(num_groups=3, **leaves))
    for one, two in zip(actual, expected, strict=True):
        assert_close(one, two, scale=1e3)


@pytest.mark.parametrize("shape", [(0, 6, 4, 5), (2, 6, 0, 5), (2, 6, 4, 0)])
@pytest.mark.parametrize("has_skip", [False, True])
def test_empty(backend: str, device: str, shape: tuple[int, ...], has_skip: bool) -> None:
    x, skip = (torch.empty(shape, device=device, requires_grad=True) for _ in range(2))
    channels = 12 if has_skip else 6
    weight, bias = (torch.ones(channels, device=device, requires_grad=True) for _ in range(2))
    result = group_norm_silu(x, 3, weight, bias, skip=skip if has_skip else None, backend=backend)
    assert result.shape == (shape[0], channels, *shape[2:])
    result.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape
    assert not has_skip or (skip.grad is not None and skip.grad.shape == shape)
    assert weight.grad is not None
    assert bias.grad is not None
    assert weight.grad.eq(0).all()
    assert bias.grad.eq(0).all()
    statistics = ops.group_norm_silu(x, 3, None, None, EPS, None, backend)[1:]
    assert all(statistic.isfinite().all() for statistic in statistics)


def test_skip_is_never_concatenated(backend: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "reference":
        pytest.skip("the reference says what it means with torch.cat")
    given = inputs(32, 16, (9, 12), torch.float32, device)
    x, skip, weight, bias = (given[name].requires_grad_() for name in ("x", "skip", "weight", "bias"))
    together = group_norm_silu(torch.cat([x, skip], dim=1), 24, weight, bias, backend=backend)
    expected = torch.autograd.grad(together.sin().sum(), (x, skip, weight, bias))
    monkeypatch.setattr(torch, "cat", None)
    monkeypatch.setattr(torch, "concat", None)
    result = group_norm_silu(x, 24, weight, bias, skip=skip, backend=backend)
    torch.testing.assert_close(result, together)
    gradients = torch.autograd.grad(result.sin().sum(), (x, skip, weight, bias))
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
def test_is_the_same_twice(backend: str, device: str, memory_format: torch.memory_format) -> None:
    """Also for any number of threads."""
    given = inputs(10, 6, (33, 20), torch.float32, device, memory_format)
    leaves = [given[name].requires_grad_() for name in ("x", "weight", "bias", "skip")]
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (max(threads, 2), 1):
            torch.set_num_threads(count)
            x, weight, bias, skip = leaves
            result = group_norm_silu(x, 8, weight, bias, skip=skip, backend=backend)
            runs.append((result, *torch.autograd.grad(result.cos().sum(), leaves)))
    finally:
        torch.set_num_threads(threads)
    exact = (torch.equal(one, two) for one, two in zip(*runs, strict=True))
    if backend == "reference":  # PyTorch's own sums depend on the number of threads
        torch.testing.assert_close(*runs)
    else:
        assert all(exact)


def test_large_values_saturate(backend: str, device: str) -> None:
    """silu(z) is z far above zero and 0 far below, without NaN where exp(-z) overflows; so are the gradients."""
    bias = torch.tensor([-1e4, -200.0, -95.0, 95.0, 1e4], device=device, requires_grad=True)
    x = values(2, 5, 4, 6, dtype=torch.float32, device=device).requires_grad_()
    result = group_norm_silu(x, 5, None, bias, backend=backend)
    z = torch.group_norm(x, 5, None, bias, EPS)
    torch.testing.assert_close(result, torch.where(z > 0, z, 0), atol=1e-30, rtol=1e-6)
    _, bias_grad = torch.autograd.grad(result.sum(), (x, bias))
    torch.testing.assert_close(
        bias_grad, torch.tensor([0.0, 0.0, 0.0, 48.0, 48.0], device=device), atol=1e-30, rtol=1e-6
    )


def test_the_error_of_the_gpus_own_exponential_and_division() -> None:
    """What CUDA promises of __expf (2 + 1.173 |z| units in the last place) and __fdividef (2), both at their worst.

    To silu they do a sixteenth of the tolerance of float32; to its derivative, where z is 87 and 1 - s is the rounding
    of s, less than three of it (with the division that Triton's `/` is, it has always been so).
    """
    z, unit = torch.linspace(-87, 87, 100_001, dtype=torch.float64), 2.0**-23
    exact = torch.sigmoid(z)
    for sign in (-1, 1):
        exponential = torch.exp(-z) * (1 + sign * (2 + 1.173 * z.abs()) * unit)
        s = 1 / (1 + exponential) * (1 - sign * 2 * unit)
        assert_allowed(z * s, z * exact, 1 / 16)
        assert_allowed(s * (1 + z * (1 - s)), exact * (1 + z * (1 - exact)), 3)


def assert_allowed(actual: Tensor, expected: Tensor, scale: float) -> None:
    absolute, relative = (scale * tolerance for tolerance in TOLERANCES[torch.float32])
    torch.testing.assert_close(actual, expected, atol=absolute, rtol=relative)


def test_autocast_leaves_the_dtype_of_x(backend: str, device: str) -> None:
    given = inputs(6, 0, dtype=torch.float32, device=device)
    expected = group_norm_silu(num_groups=3, backend=backend, **given)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(group_norm_silu(num_groups=3, backend=backend, **given), expected)


def test_meta_tensors() -> None:
    x, skip = torch.empty(2, 6, 4, 5, device="meta"), torch.empty(2, 3, 4, 5, device="meta")
    assert group_norm_silu(x, 3, skip=skip).shape == (2, 9, 4, 5)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "permuted"])
@pytest.mark.parametrize("form", ["plain", "with skip"])
def test_registration(backend: str, device: str, layout: str, form: str) -> None:
    if backend == "triton" and layout == "permuted":
        pytest.skip("it is copied as on the other backends, and Triton's interpreter is slow")
    x = dict(sample_layouts(torch.float32, device, (3, 4)))[layout]
    skip = None if form == "plain" else 2 * x
    affine = None if form == "plain" else values(6, dtype=torch.float32, device=device)
    _, mean, rstd = ops.group_norm_silu(x, 3, affine, affine, EPS, skip, backend)
    grad = torch.ones_like(x if skip is None else torch.cat([x, skip], 1))
    torch.library.opcheck(ops.group_norm_silu_backward, (grad, x, 3, affine, affine, mean, rstd, skip, backend))
    x, skip, affine = (None if tensor is None else tensor.detach().requires_grad_() for tensor in (x, skip, affine))
    torch.library.opcheck(ops.group_norm_silu, (x, 3, affine, affine, EPS, skip, backend))


class Graphs:
    """A compiler backend that runs what it gets, and remembers which operators the graphs call."""

    def __init__(self) -> None:
        self.forward: list[str] = []
        self.backward: list[str] = []

    def compiler(self, seen: list[str]) -> Any:
        def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
            seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
            return make_boxed_func(graph.forward)

        return keep

    def backend(self) -> Any:
        return aot_autograd(fw_compiler=self.compiler(self.forward), bw_compiler=self.compiler(self.backward))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
def test_compiles_to_one_graph_with_the_fused_backward(
    backend: str, device: str, dynamic: bool, memory_format: torch.memory_format
) -> None:
    graphs = Graphs()
    torch._dynamo.reset()

    def function(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
        return group_norm_silu(x, 3, weight, bias, skip=skip, backend=backend).cos()

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=graphs.backend())
    for size, batch in [((8, 6), 2), ((5, 9), 3)]:
        given = inputs(5, 4, size, torch.float32, device, memory_format, batch=batch)
        leaves = [given[name].requires_grad_() for name in ("x", "weight", "bias", "skip")]
        one, two = compiled(*leaves), function(*leaves)
        assert torch.equal(one, two)
        assert one.stride() == two.stride()
        gradients = torch.autograd.grad(one.sum(), leaves), torch.autograd.grad(two.sum(), leaves)
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert "litevae_kernels.group_norm_silu.default" in graphs.forward
    assert "litevae_kernels.group_norm_silu_backward.default" in graphs.backward
    assert not any("sigmoid" in name or "rsqrt" in name for name in graphs.forward + graphs.backward)


SMALL_PLANS = {
    "many parts": {"PART_TILES": 1, "FEWEST_PROGRAMS": 10**6},
    "one part": {"PART_TILES": 10**6, "ENOUGH_PROGRAMS": 1},
    "few long slices": {"PART_TILES": 2, "ENOUGH_PROGRAMS": 1},
    "slices by the batch": {"TILE_ELEMENTS": 512, "PART_TILES": 1, "ENOUGH_PROGRAMS": 4},
}


@pytest.fixture
def triton_plans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Partial results even for small groups, divided as the constants of the parameter say."""
    pytest.importorskip("triton")
    plans = importlib.import_module("litevae_kernels.group_norm_silu.triton_plans")
    caches = (plans.forward_launches, plans.backward_launches)
    for name, value in ({"WHOLE_GROUPS_ELEMENTS": 0, "TILE_ELEMENTS": 64} | SMALL_PLANS[request.param]).items():
        monkeypatch.setattr(plans, name, value)
    for cached in caches:
        cached.cache_clear()
    yield plans
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("backend", ["triton", "cuda"], indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
@pytest.mark.parametrize(("skip_channels", "size"), [(4, (24, 40)), (0, (9, 16))])
@pytest.mark.parametrize("triton_plans", ["slices by the batch"], indirect=True)
def test_a_sample_does_not_depend_on_its_batch(
    backend: str,
    device: str,
    memory_format: torch.memory_format,
    skip_channels: int,
    size: tuple[int, int],
    triton_plans: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit for bit, forward and backward: what is added in which order follows from a sample alone."""
    if backend == "triton" and skip_channels == 0:
        monkeypatch.setattr(triton_plans, "WHOLE_GROUPS_ELEMENTS", 16384)
    monkeypatch.setattr(cuda, "ENOUGH_BLOCKS", 2)
    cuda._plan.cache_clear()
    given = inputs(4, skip_channels, size, torch.float32, device, memory_format, batch=3)
    runs = []
    for samples in (slice(0, 3), slice(2, 3)):
        x, skip = (
            None if given[name] is None else given[name][samples].clone(memory_format=memory_format).requires_grad_()
            for name in ("x", "skip")
        )
        result = group_norm_silu(x, 2, given["weight"], given["bias"], skip=skip, backend=backend)
        gradients = torch.autograd.grad(result.sin().sum(), [x] if skip is None else [x, skip])
        runs.append([tensor[-1:] for tensor in (result, *gradients)])
    cuda._plan.cache_clear()
    assert all(torch.equal(one, two) for one, two in zip(*runs, strict=True))


@pytest.mark.parametrize("triton_plans", SMALL_PLANS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["NCHW", "channels_last"])
def test_triton_with_partial_results(triton_plans: Any, memory_format: torch.memory_format) -> None:
    """Parts and slices of one tile or of many; x and skip of unlike channels; groups larger than a block."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for channels, skip_channels, num_groups, size in [(5, 4, 3, (13, 10)), (6, 0, 1, (9, 7)), (32, 16, 24, (3, 5))]:
        dtype = torch.float32 if num_groups == 3 else torch.float64
        given = inputs(channels, skip_channels, size, dtype, device, memory_format, batch=1)
        check_against_torch("triton", num_groups, given, scale=4)
