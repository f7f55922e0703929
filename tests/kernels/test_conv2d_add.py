"""Is `conv2d_add` the sum, with its gradients, and oneDNN's only where nobody needs PyTorch's own operations?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

from litevae_kernels import conv2d_add
from litevae_kernels.conv2d_add import onednn, reference

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
SHAPES = [(2, 5, 7), (1, 1, 1), (1, 8, 8), (3, 1, 9)]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Fills with what oneDNN adds to."""
    calls: list[Tensor] = []
    original = onednn.conv2d_add

    def counted(residual: Tensor, *arguments: object) -> Tensor:
        calls.append(residual)
        return original(residual, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(onednn, "conv2d_add", counted)
    return calls


def tensors(
    shape: tuple[int, int, int] = (2, 5, 7), kernel_size: int = 3, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """residual, x, weight and bias; images in channels_last."""
    generator = torch.Generator().manual_seed(0)
    batch, height, width = shape
    sizes = [(batch, 12, height, width), (batch, 8, height, width), (12, 8, kernel_size, kernel_size)]
    images = [torch.randn(size, generator=generator).to(dtype, memory_format=torch.channels_last) for size in sizes]
    return [*images, torch.randn(12, generator=generator).to(dtype)]


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@needs_onednn
@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_sum(
    shape: tuple[int, int, int], kernel_size: int, has_bias: bool, dtype: torch.dtype, fused: list[Tensor]
) -> None:
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN knows no bfloat16 on this CPU")
    residual, x, weight, bias = tensors(shape, kernel_size, dtype)
    before = [tensor.clone() for tensor in (residual, x)]
    arguments = (bias if has_bias else None, kernel_size // 2)
    exact = residual.double() + F.conv2d(x.double(), weight.double(), bias.double(), padding=kernel_size // 2)
    exact = exact if has_bias else exact - bias.double().view(1, -1, 1, 1)
    plain = reference.conv2d_add(residual, x, weight, *arguments)
    result = conv2d_add(residual, x, weight, arguments[0], padding=arguments[1])
    assert len(fused) == (result[0, 0].numel() > 1)
    assert torch.equal(residual, before[0])
    assert torch.equal(x, before[1])
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.dtype == plain.dtype == dtype
    if dtype == torch.float32:
        assert error(result, exact) < 1e-6
        assert error(plain, exact) < 1e-6
    else:  # each element is rounded once, by at most a unit roundoff; plain ones twice, the same where not fused
        assert error(result, exact) <= max(torch.finfo(dtype).eps / 2 + 1e-6, error(plain, exact))


@torch.no_grad()
@pytest.mark.parametrize("padding", [(0, 1), (1, 0), (2, 1)])
def test_rows_and_columns_have_their_own_padding(padding: tuple[int, int], fused: list[Tensor]) -> None:
    _, x, weight, bias = tensors()
    convolved = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    residual = torch.ones(convolved.shape).to(memory_format=torch.channels_last)
    assert error(conv2d_add(residual, x, weight, bias, padding=padding), 1 + convolved) < 1e-6
    assert len(fused) == torch.backends.mkldnn.is_available()


@torch.no_grad()
@pytest.mark.parametrize(("out_channels", "side", "padding"), [(1, 5, 1), (1, 3, 0), (12, 3, 0), (12, 1, 1)])
def test_one_channel_or_one_pixel(out_channels: int, side: int, padding: int) -> None:
    _, x, weight, bias = tensors((2, side, side))
    weight, bias = weight[:out_channels], bias[:out_channels]
    convolved = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        residual = torch.ones(convolved.shape).to(memory_format=memory_format)
        assert error(conv2d_add(residual, x, weight, bias, padding=padding), 1 + convolved) < 1e-6


@pytest.mark.parametrize("padding", [0, 1])
def test_gradients(padding: int, fused: list[Tensor]) -> None:
    _, x, weight, bias = (tensor.double().requires_grad_() for tensor in tensors((1, 3, 4)))
    size = (1, 12, 1 + 2 * padding, 2 + 2 * padding)
    residual = torch.randn(size, dtype=torch.float64, requires_grad=True)

    def function(*inputs: Tensor) -> Tensor:
        return conv2d_add(*inputs, padding=padding)

    assert gradcheck(function, (residual, x, weight, bias), fast_mode=True)
    assert gradgradcheck(function, (residual, x, weight, bias), fast_mode=True)
    expected = residual + F.conv2d(x, weight, bias, padding=padding)
    torch.testing.assert_close(function(residual, x, weight, bias), expected, rtol=0, atol=0)
    assert not fused


def test_the_sum_of_two_dtypes_has_pytorch_s() -> None:
    residual, x, weight, bias = tensors()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result = conv2d_add(residual, x, weight, bias, padding=1)
        expected = residual + F.conv2d(x, weight, bias, padding=1)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


@needs_onednn
def test_who_records_counts_or_transforms_operations_gets_pytorch_s(
    fused: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_fused(*inputs: Tensor) -> bool:
        fused.clear()
        conv2d_add(*inputs, padding=1)
        return bool(fused)

    inputs = tensors()
    assert not is_fused(*inputs)  # a gradient may be recorded
    with torch.no_grad():
        assert is_fused(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_fused(*inputs)
        with FlopCounterMode(display=False) as counter:
            assert not is_fused(*inputs)
        assert counter.get_total_flops() > 0
        with monkeypatch.context() as patch:
            patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
            assert not is_fused(*inputs)
        fused.clear()
        residual, x, weight, bias = inputs
        torch.func.vmap(lambda residual, x: conv2d_add(residual, x, weight, bias, padding=1))(residual[None], x[None])
        assert not fused
        assert not is_fused(residual, x.contiguous(), weight, bias)
        assert not is_fused(*[tensor.double() for tensor in inputs])
        compiled = torch.compile(conv2d_add, backend="eager", fullgraph=True)
        fused.clear()
        torch.testing.assert_close(compiled(*inputs, padding=1), conv2d_add(*inputs, padding=1))
        assert len(fused) == 1  # the second one's


@pytest.mark.parametrize("records", [False, True])
@pytest.mark.parametrize("image_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("residual_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_is_that_of_conv2d(
    records: bool, image_format: torch.memory_format, residual_format: torch.memory_format
) -> None:
    residual, x, weight, bias = tensors()
    residual, x = residual.contiguous(memory_format=residual_format), x.contiguous(memory_format=image_format)
    with torch.set_grad_enabled(records):
        result = conv2d_add(residual, x, weight.contiguous().requires_grad_(), bias, padding=1)
    assert result.is_contiguous(memory_format=image_format)


BAD_INPUTS = [
    ({"residual": torch.zeros(2, 12, 5, 6)}, ValueError, r"residual must have the convolution's shape \[2, 12, 5, 7\]"),
    ({"residual": torch.zeros(12, 1, 1)}, ValueError, "residual must have the convolution's shape"),
    ({"x": torch.zeros(8, 5, 7)}, ValueError, r"x must have shape \[B, I, H, W\].*x\[None\]"),
    ({"x": torch.zeros(2, 7, 5, 7)}, ValueError, "x must have 8 channels, the weight's"),
    ({"x": None}, TypeError, r"x must be a torch\.Tensor"),
    ({"x": torch.zeros(2, 8, 5, 7, dtype=torch.int64)}, TypeError, "x must have dtype"),
    ({"weight": torch.zeros(12, 8)}, ValueError, r"weight must have shape \[O, I, kh, kw\]"),
    ({"bias": [0.0] * 12}, TypeError, r"bias must be a torch\.Tensor"),
    ({"bias": torch.zeros(12, dtype=torch.int64)}, TypeError, "bias must have dtype"),
    ({"bias": torch.zeros(8)}, ValueError, r"bias must have shape \[12\]"),
    ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
    ({"padding": 1.0}, TypeError, r"padding must be an int, got 1\.0"),
    ({"padding": (1, -1)}, ValueError, r"padding\[1\] must be at least 0, got -1"),
    ({"padding": (1,)}, ValueError, "padding must have two entries, for rows and for columns"),
    ({"padding": (1, 0)}, ValueError, r"residual must have the convolution's shape \[2, 12, 5, 5\]"),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD_INPUTS)
def test_bad_inputs_are_refused(change: dict[str, object], kind: type[Exception], message: str) -> None:
    inputs = dict(zip(("residual", "x", "weight", "bias"), tensors(), strict=True))
    with pytest.raises(kind, match=message):
        conv2d_add(**{**inputs, "padding": 1, **change})  # type: ignore[arg-type]
