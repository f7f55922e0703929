"""Does a ResBlock end in the sum of its formula, fused or not, and are layers that must be called called?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from litevae.models.blocks import ResBlock
from litevae_kernels.conv2d_add import onednn

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
SHAPES = [(2, 5, 7), (1, 1, 1), (1, 8, 8), (3, 1, 9)]


@pytest.fixture
def fused(monkeypatch):
    """Fills with what oneDNN adds to."""
    calls = []
    original = onednn.conv2d_add

    def counted(residual, *arguments):
        calls.append(residual)
        return original(residual, *arguments)

    monkeypatch.setattr(onednn, "conv2d_add", counted)
    return calls


def block_and_inputs(skip_channels, dtype=torch.float32, shape=(2, 5, 7), out_channels=16, normalization="group_norm"):
    torch.manual_seed(0)
    block = ResBlock(16 + skip_channels, out_channels, normalization=normalization)
    batch, height, width = shape
    inputs = [torch.randn(batch, channels, height, width) for channels in (16, skip_channels) if channels]
    block = block.to(dtype, memory_format=torch.channels_last)
    return block, [x.to(dtype, memory_format=torch.channels_last) for x in inputs]


def error(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm())


@needs_onednn
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("skip_channels", "out_channels", "normalization"),
    [(0, 16, "group_norm"), (0, 24, "group_norm"), (8, 16, "group_norm"), (0, 16, "smc"), (0, 24, "none")],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_is_the_plain_one(shape, skip_channels, out_channels, normalization, dtype, fused, monkeypatch):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN knows no bfloat16 on this CPU")
    block, inputs = block_and_inputs(skip_channels, dtype, shape, out_channels, normalization)
    before = [x.clone() for x in inputs]
    with torch.no_grad():
        result = block(*inputs)
        sums = 2 if skip_channels else 1
        assert len(fused) == (sums if result[0, 0].numel() > 1 else 0)
        monkeypatch.setattr(onednn, "can_run", lambda *_: False)
        plain = block(*inputs)
        exact = block.double()(*[x.double() for x in inputs])
    assert all(torch.equal(x, kept) for x, kept in zip(inputs, before, strict=True))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.dtype == dtype
    if dtype == torch.float32:
        assert error(result, plain.double()) < 1e-6
    else:  # a fused sum is rounded once, by at most a unit roundoff; the plain roundings may cancel the block's others
        assert error(result, exact) <= error(plain, exact) + sums * torch.finfo(dtype).eps / 2


@needs_onednn
def test_only_without_gradients(fused):
    block, inputs = block_and_inputs(8)
    block(*inputs)
    assert not fused
    with torch.no_grad():
        block(*inputs)
        assert len(fused) == 2
        fused.clear()
        torch.compile(block, backend="eager", fullgraph=True)(*inputs)
        torch.func.vmap(block)(*[x[None] for x in inputs])
    assert not fused


@needs_onednn
@torch.no_grad()
def test_layers_that_are_hooked_or_replaced_are_called(fused):
    block, inputs = block_and_inputs(8)
    plain = block(*inputs)
    seen = []
    hook = block.conv2.register_forward_hook(lambda *call: seen.append(call[2]))
    torch.testing.assert_close(block(*inputs), plain)
    assert len(seen) == 1
    hook.remove()
    block.conv_shortcut.register_forward_hook(lambda *call: seen.append((call[2], call[2].clone())))
    torch.testing.assert_close(block(*inputs), plain)
    assert torch.equal(*seen[1])  # what the hook kept is not written over
    block.conv2.forward = lambda x: torch.zeros(())
    assert torch.equal(block(*inputs), seen[2][1])

    class Other(nn.Conv2d):
        def forward(self, input):
            return torch.zeros(())

    block, inputs = block_and_inputs(8)
    block.conv2 = Other(16, 16, 3, padding=1)
    torch.testing.assert_close(block(*inputs), block.conv_shortcut(torch.cat(inputs, dim=1)))


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"dilation": 2, "padding": 2}, {"groups": 4}, {"padding_mode": "reflect"}])
def test_another_convolution_in_its_place_is_called(settings):
    block, inputs = block_and_inputs(0)
    block.conv2 = nn.Conv2d(16, 16, 3, **{"padding": 1, **settings}).to(memory_format=torch.channels_last)
    expected = inputs[0] + block.conv2(block.norm2(block.conv1(block.norm1(*inputs))))
    torch.testing.assert_close(block(*inputs), expected, rtol=1e-5, atol=1e-5)
