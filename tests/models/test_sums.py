"""Do convolutions that oneDNN adds to a tensor give the sum, and only where nobody needs PyTorch's own operations?"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from litevae.models import sums
from litevae.models.blocks import ResBlock

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
SHAPES = [(2, 5, 7), (1, 1, 1), (1, 8, 8), (3, 1, 9)]


@pytest.fixture
def fused(monkeypatch):
    """How often a convolution was added to another tensor."""
    calls = []
    original = sums.add_convolution

    def counted(*arguments, **settings):
        calls.append(settings["in_place"])
        return original(*arguments, **settings)

    monkeypatch.setattr(sums, "add_convolution", counted)
    return calls


def block_and_inputs(of_skip, dtype=torch.float32, shape=(2, 5, 7), out_channels=16):
    torch.manual_seed(0)
    block = ResBlock(16 + of_skip, out_channels).to(dtype, memory_format=torch.channels_last)
    batch, height, width = shape
    inputs = [torch.randn(batch, channels, height, width) for channels in (16, of_skip) if channels]
    return block, [x.to(dtype, memory_format=torch.channels_last) for x in inputs]


def error(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm())


@needs_onednn
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("of_skip", "out_channels"), [(0, 16), (0, 24), (8, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_is_the_plain_one(shape, of_skip, out_channels, dtype, fused, monkeypatch):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN knows no bfloat16 on this CPU")
    block, inputs = block_and_inputs(of_skip, dtype, shape, out_channels)
    before = [x.clone() for x in inputs]
    with torch.no_grad():
        result = block(*inputs)
        assert fused == ([True] if of_skip else []) + [out_channels != 16 or of_skip > 0]
        monkeypatch.setattr(sums, "adds", lambda *_: False)
        plain = block(*inputs)
        exact = block.double()(*[x.double() for x in inputs])
    assert all(torch.equal(x, kept) for x, kept in zip(inputs, before, strict=True))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.dtype == dtype
    if dtype == torch.float32:
        assert error(result, plain.double()) < 1e-6
    else:
        assert error(result, exact) <= 1.05 * error(plain, exact)


def taken(fused, block, inputs):
    fused.clear()
    block(*inputs)
    return bool(fused)


@needs_onednn
def test_who_records_counts_or_wraps_operations_gets_the_plain_ones(fused, monkeypatch):
    block, inputs = block_and_inputs(8)
    assert not taken(fused, block, inputs)  # a gradient is recorded
    with torch.no_grad():
        assert taken(fused, block, inputs)
        with torch.autocast("cpu", torch.bfloat16):
            assert not taken(fused, block, inputs)
        with FlopCounterMode(display=False) as counter:
            assert not taken(fused, block, inputs)
        assert counter.get_total_flops() > 0
        with monkeypatch.context() as patch:
            patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
            assert not taken(fused, block, inputs)
        fused.clear()
        torch.func.vmap(block)(*[x[None] for x in inputs])
        assert not fused
        contiguous = [x.contiguous() for x in inputs]
        assert not taken(fused, block.to(memory_format=torch.contiguous_format), contiguous)
        assert not taken(fused, block.double(), [x.double() for x in inputs])
        fused.clear()
        compiled = torch.compile(block.float(), backend="eager", fullgraph=True)
        compiled(*inputs)
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
    assert torch.equal(block(*inputs), block.conv_shortcut(*inputs))
