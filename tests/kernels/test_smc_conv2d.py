"""Is self-modulated convolution Eq. 3: against float64, StyleGAN's per-sample form, and with all its derivatives?"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from litevae_kernels import smc_conv2d, smc_weight
from litevae_kernels.smc_conv2d import ops

from .samples import assert_close

SHAPES = [(1, 1, 1, 1), (5, 7, 3, 3), (70, 40, 1, 1), (3, 300, 3, 3), (4, 6, 5, 3), (2, 1200, 3, 3)]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def parameters(
    *shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu", channels_last: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    weight = torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)
    scales = torch.rand(shape[1], generator=generator, dtype=torch.float64).add(0.5).to(device, dtype)
    gain = torch.tensor([1.5], dtype=dtype, device=device)
    return weight.to(memory_format=torch.channels_last) if channels_last else weight, scales, gain


def per_sample_convolution(x: Tensor, weight: Tensor, scales: Tensor, gain: Tensor, eps: float = 1e-8) -> Tensor:
    """StyleGAN's modulated convolution with the same style for every sample: a grouped convolution of B weights."""
    batch, (outputs, inputs, *taps) = x.shape[0], weight.shape
    styles = scales.expand(batch, -1)
    weights = weight[None] * styles[:, None, :, None, None]  # [B, O, I, kh, kw]
    weights = gain * weights / (weights.square().sum(dim=(2, 3, 4), keepdim=True) + eps).sqrt()
    grouped = x.reshape(1, batch * inputs, *x.shape[2:])
    result = F.conv2d(grouped, weights.reshape(batch * outputs, inputs, *taps), padding=1, groups=batch)
    return result.reshape(batch, outputs, *result.shape[2:])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_weight_equals_equation_3(
    backend: str, device: str, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool
) -> None:
    weight, scales, gain = parameters(*shape, dtype=dtype, device=device, channels_last=channels_last)
    w, s = weight.double(), scales.double()
    norms = torch.einsum("i,oikl->o", s.square(), w.square()).add(1e-8).sqrt()
    expected = torch.einsum("i,oikl,o->oikl", s, w, 1 / norms)
    plain = smc_weight(weight, scales, backend=backend)
    assert_close(plain, expected)
    assert plain.is_contiguous(memory_format=torch.channels_last) == weight.is_contiguous(
        memory_format=torch.channels_last
    )
    for result_dtype in DTYPES:
        result = smc_weight(weight, scales, gain, dtype=result_dtype, backend=backend)
        assert result.dtype == result_dtype
        scale = 1.0 if result_dtype != torch.float64 or dtype == torch.float64 else 1e7  # the arithmetic is float32
        assert_close(result, 1.5 * expected, scale=scale)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradient_equals_float64(
    backend: str, device: str, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool
) -> None:
    inputs = [p.requires_grad_() for p in parameters(*shape, dtype=dtype, device=device, channels_last=channels_last)]
    exact = [p.detach().double().requires_grad_() for p in inputs]
    grad = torch.linspace(-1, 1, inputs[0].numel(), device=device).view(shape).to(dtype)
    actual = torch.autograd.grad(smc_weight(*inputs, backend=backend), inputs, grad)
    w, s, g = exact
    modulated = s[:, None, None] * w
    formula = g * modulated / (modulated.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    for gradient, expected, argument in zip(
        actual, torch.autograd.grad(formula, exact, grad.double()), inputs, strict=True
    ):
        assert gradient.dtype == dtype
        assert gradient.shape == argument.shape
        assert_close(gradient, expected, scale=40)  # sums over up to 2700 elements that cancel


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32, torch.float64), (torch.float32,) * 3])
def test_parameters_of_any_dtype_at_any_address(
    backend: str, device: str, dtypes: tuple[torch.dtype, ...], channels_last: bool
) -> None:
    """Rows of 16 bytes an access that start anywhere, and a gradient that is a view with gaps."""
    weight, scales, gain = (
        parameter.to(dtype) for parameter, dtype in zip(parameters(4, 16, 3, 3, device=device), dtypes, strict=True)
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for shift in (0, 1):
        storage = torch.empty(weight.numel() + shift, dtype=weight.dtype, device=device)
        dense = weight.contiguous(memory_format=memory_format)
        moved = storage[shift:].as_strided(dense.shape, dense.stride(), shift).copy_(weight)
        inputs = [parameter.detach().requires_grad_() for parameter in (moved, scales, gain)]
        exact = [parameter.detach().double().requires_grad_() for parameter in inputs]
        grad = torch.linspace(-1, 1, 2 * weight.numel(), device=device).view(4, 32, 3, 3)[:, ::2]
        result = smc_weight(*inputs, dtype=torch.float32, backend=backend)
        expected = smc_weight(*exact, backend="reference")
        assert_close(result, expected)
        actual = torch.autograd.grad(result, inputs, grad)
        for gradient, wanted, dtype in zip(
            actual, torch.autograd.grad(expected, exact, grad.double()), dtypes, strict=True
        ):
            assert gradient.dtype == dtype
            scale = 40.0 if dtype != torch.float64 else 1e8  # the arithmetic is float32
            assert_close(gradient, wanted, scale=scale)


def test_derivatives(backend: str, device: str) -> None:
    """First and second, of weight, scales, gain, bias and x, in float64."""
    weight, scales, gain = (p.requires_grad_() for p in parameters(2, 3, 2, 2, device=device))
    x = torch.randn(2, 3, 4, 3, dtype=torch.float64, device=device, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, device=device, requires_grad=True)

    def convolution(*inputs: Tensor) -> Tensor:
        return smc_conv2d(*inputs, padding=1, stride=(2, 1), backend=backend)

    fast = {"fast_mode": backend == "triton"}
    assert gradcheck(convolution, (x, weight, scales, gain, bias), **fast)
    assert gradgradcheck(convolution, (x, weight, scales, gain, bias), fast_mode=True)
    assert gradcheck(lambda w, s: smc_weight(w, s, backend=backend), (weight, scales), **fast)


def test_one_weight_serves_the_batch(backend: str, device: str) -> None:
    """Equals the per-sample grouped convolution; a sample does not depend on its neighbours."""
    weight, scales, gain = parameters(6, 5, 3, 3, device=device)
    x = torch.randn(8, 5, 9, 7, dtype=torch.float64, device=device)
    together = smc_conv2d(x, weight, scales, gain, padding=1, backend=backend)
    assert_close(together, per_sample_convolution(x, weight, scales, gain))
    assert_close(smc_conv2d(x[:1], weight, scales, gain, padding=1, backend=backend), together[:1])


def test_invariants(backend: str, device: str) -> None:
    weight, scales, gain = (p.requires_grad_() for p in parameters(7, 6, 3, 3, device=device))
    demodulated = smc_weight(weight, scales, gain, backend=backend)
    assert_close(demodulated.flatten(1).norm(dim=1), torch.full((7,), 1.5, dtype=torch.float64, device=device), 1e4)
    demodulated.mul(torch.randn_like(demodulated)).sum().backward()
    assert weight.grad is not None
    assert scales.grad is not None
    assert abs((scales * scales.grad).sum().item()) < 1e-6  # scaling every scale alike changes nothing
    assert (weight * weight.grad).sum((1, 2, 3)).abs().max() < 1e-6  # nor does scaling a row


def test_a_zero_row_stays_zero_and_its_gradient_finite(backend: str, device: str) -> None:
    weight, scales, gain = parameters(3, 4, 3, 3, dtype=torch.float32, device=device)
    weight[1] = 0
    inputs = [p.requires_grad_() for p in (weight, scales, gain)]
    demodulated = smc_weight(*inputs, backend=backend)
    assert demodulated[1].eq(0).all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(demodulated.sum(), inputs))


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), ((2, 1), (0, 2))])
def test_stride_and_padding_are_honoured(
    backend: str, device: str, stride: int | tuple[int, int], padding: int | tuple[int, int]
) -> None:
    weight, scales, _ = parameters(4, 3, 3, 3, device=device)
    x = torch.randn(2, 3, 11, 8, dtype=torch.float64, device=device)
    expected = F.conv2d(x, smc_weight(weight, scales, backend="reference"), stride=stride, padding=padding)
    assert_close(smc_conv2d(x, weight, scales, stride=stride, padding=padding, backend=backend), expected)


def test_half_input_with_float32_master_weights(backend: str, device: str) -> None:
    weight, scales, gain = parameters(4, 3, 3, 3, dtype=torch.float32, device=device)
    x = torch.randn(2, 3, 8, 8, device=device).bfloat16()
    result = smc_conv2d(x, weight, scales, gain, bias=torch.ones(4, device=device), padding=1, backend=backend)
    expected = smc_conv2d(x.double(), weight.double(), scales.double(), gain.double(), backend="reference", padding=1)
    assert result.dtype == torch.bfloat16
    assert_close(result, expected + 1)


def test_autocast(backend: str, device: str) -> None:
    weight, scales, gain = (p.requires_grad_() for p in parameters(4, 3, 3, 3, dtype=torch.float32, device=device))
    x = torch.randn(2, 3, 8, 8, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        result = smc_conv2d(x, weight, scales, gain, padding=1, backend=backend)
    assert result.dtype == torch.bfloat16
    result.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_is_the_same_twice_and_for_any_number_of_threads() -> None:
    weight, scales, gain = (p.requires_grad_() for p in parameters(64, 80, 3, 3, dtype=torch.float32))
    threads = torch.get_num_threads()
    runs = []
    for count in (threads, 1):
        torch.set_num_threads(count)
        result = smc_weight(weight, scales, gain, backend="cpu")
        runs.append((result, *torch.autograd.grad(result.cos().sum(), (weight, scales, gain))))
    torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*runs, strict=True))


def test_autocast_leaves_float64_alone_and_meta_tensors_work() -> None:
    x, (weight, scales, gain) = torch.randn(2, 3, 8, 8, dtype=torch.float64), parameters(4, 3, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(smc_conv2d(x, weight, scales, gain), smc_conv2d(x, weight, scales, gain))
        assert smc_conv2d(x, weight, scales, gain).dtype == torch.float64
    assert smc_conv2d(x.to("meta"), weight.to("meta"), scales.to("meta"), padding=1).shape == (2, 4, 8, 8)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "permuted"])
@pytest.mark.parametrize("has_gain", [False, True])
def test_registration(backend: str, device: str, layout: str, has_gain: bool) -> None:
    is_channels_last = layout == "channels_last"
    weight, scales, gain = parameters(4, 3, 3, 3, dtype=torch.float32, device=device, channels_last=is_channels_last)
    if layout == "permuted":
        weight = weight.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    for parameter in (weight, scales, gain):
        parameter.requires_grad_()
    given_gain = gain if has_gain else None
    torch.library.opcheck(ops.smc_weight, (weight, scales, given_gain, 1e-8, torch.bfloat16, backend))
    grad, detached_gain = torch.randn(4, 3, 3, 3, device=device), given_gain and gain.detach()
    arguments = (grad, weight.detach(), scales.detach(), detached_gain, 1e-8, backend)
    torch.library.opcheck(ops.smc_weight_backward, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(dynamic: bool) -> None:
    weight, scales, gain = (p.requires_grad_() for p in parameters(4, 3, 3, 3, dtype=torch.float32))

    def convolution(x: Tensor) -> Tensor:
        return smc_conv2d(x, weight, scales, gain, padding=1)

    compiled = torch.compile(convolution, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in [(2, 3, 8, 8), (5, 3, 6, 9)]:
        x = torch.randn(size)
        torch.testing.assert_close(compiled(x), convolution(x))
        torch.testing.assert_close(
            torch.autograd.grad(compiled(x).cos().sum(), (weight, scales, gain)),
            torch.autograd.grad(convolution(x).cos().sum(), (weight, scales, gain)),
        )
