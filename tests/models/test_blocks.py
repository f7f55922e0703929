"""Are the blocks what diffusers and the paper's Eq. 3 say they are?"""

from __future__ import annotations

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F

from litevae.models.blocks import GroupNormSiLU, ResBlock, SMConv2d, group_count


@pytest.mark.parametrize("channels", [1, 7, 16, 33, 48, 64, 96, 192, 512])
def test_group_count_is_the_largest_divisor_up_to_32(channels):
    assert group_count(channels) == max(d for d in range(1, 33) if channels % d == 0)


@pytest.mark.parametrize("shape", [(2, 48, 5, 7), (1, 16, 1, 1)])
def test_group_norm_silu_is_the_two_in_float64(shape, assert_same):
    torch.manual_seed(0)
    layer = GroupNormSiLU(shape[1]).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = 3 * torch.randn(shape, dtype=torch.float64) + 1
    grouped = x.reshape(shape[0], group_count(shape[1]), -1)
    centred = grouped - grouped.mean(dim=2, keepdim=True)
    normal = (centred / (centred.square().mean(dim=2, keepdim=True) + 1e-6).sqrt()).reshape(shape)
    affine = normal * layer.weight[:, None, None] + layer.bias[:, None, None]
    assert_same(layer(x), affine * torch.sigmoid(affine), 1e-12)


@pytest.mark.parametrize(("before", "after"), [(32, 32), (32, 64), (48, 24)])
def test_res_block_is_diffusers_given_its_weights(before, after, assert_same):
    torch.manual_seed(0)
    oracle = ResnetBlock2D(
        in_channels=before,
        out_channels=after,
        temb_channels=None,
        groups=group_count(before),
        groups_out=group_count(after),
        eps=1e-6,
    )
    block = ResBlock(before, after)
    block.load_state_dict(oracle.state_dict())
    x = torch.randn(2, before, 6, 5)
    assert_same(block(x), oracle(x, temb=None))


@pytest.mark.parametrize(("x_channels", "skip_channels"), [(8, 16), (20, 12), (24, 24)])
def test_res_block_with_a_skip_is_that_of_the_concatenation(x_channels, skip_channels, assert_same):
    torch.manual_seed(0)
    block = ResBlock(x_channels + skip_channels, 16).double()
    nn.init.normal_(block.conv_shortcut.bias)
    x, skip = (
        torch.randn(2, x_channels, 6, 5, dtype=torch.float64),
        torch.randn(2, skip_channels, 6, 5, dtype=torch.float64),
    )
    hooked = []
    block.conv_shortcut.register_forward_hook(lambda *call: hooked.append(call[2].shape))
    block.conv2.register_full_backward_hook(lambda *call: None)
    gradients = []
    for inputs in ((x, skip), (torch.cat([x, skip], dim=1),)):
        result = block(*inputs)
        gradients.append([result, *torch.autograd.grad(result.square().sum(), list(block.parameters()))])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    assert hooked == 2 * [(2, 16, 6, 5)]


@pytest.mark.parametrize("normalization", ["smc", "none"])
def test_res_block_without_norms(normalization, assert_same):
    torch.manual_seed(0)
    block = ResBlock(6, 10, normalization=normalization).double()
    assert not any("norm" in name for name in block.state_dict())

    def weight(convolution):
        return convolution.folded_weight() if normalization == "smc" else convolution.weight

    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    hidden = F.conv2d(F.silu(x), weight(block.conv1), block.conv1.bias, padding=1)
    hidden = F.conv2d(F.silu(hidden), weight(block.conv2), block.conv2.bias, padding=1)
    assert_same(block(x), F.conv2d(x, block.conv_shortcut.weight, block.conv_shortcut.bias) + hidden, 1e-12)


def test_dropout_is_in_the_block_and_only_while_training(assert_same):
    torch.manual_seed(0)
    block = ResBlock(8, 8, dropout=0.5)
    x = torch.randn(1, 8, 4, 4)
    plain = ResBlock(8, 8)
    plain.load_state_dict(block.state_dict())
    assert_same(block.eval()(x), plain(x))
    assert not torch.allclose(block.train()(x), plain(x), atol=1e-3)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (4, 0)])
def test_smc_is_equation_3(stride, padding, assert_same):
    torch.manual_seed(0)
    layer = SMConv2d(5, 7, 3, stride=stride, padding=padding).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64)
    modulated = layer.weight * layer.scales[None, :, None, None]
    norms = torch.stack([(row.square().sum() + 1e-8).sqrt() for row in modulated])
    weight = layer.gain * modulated / norms[:, None, None, None]
    expected = F.conv2d(x, weight, layer.bias, stride=stride, padding=padding)
    assert_same(layer(x), expected, 1e-12)
    assert_same(layer.folded_weight(), weight, 1e-12)


def test_smc_starts_with_unit_rows_and_trains_all_four_parameters():
    torch.manual_seed(0)
    layer = SMConv2d(8, 16, 3, padding=1)
    torch.testing.assert_close(layer.folded_weight().flatten(1).norm(dim=1), torch.ones(16))
    layer(torch.randn(2, 8, 5, 5)).square().sum().backward()
    assert {name: bool(p.grad.abs().sum() > 0) for name, p in layer.named_parameters()} == {
        "weight": True,
        "scales": True,
        "gain": True,
        "bias": True,
    }


def test_smc_keeps_the_size_of_activations():
    torch.manual_seed(0)
    layer = SMConv2d(64, 64, 3)
    x = 5 * torch.randn(8, 64, 34, 34)
    with torch.no_grad():
        layer.gain.fill_(0.7)
        assert float(layer(x).std()) == pytest.approx(0.7 * 5, rel=0.02)


def test_global_hooks_see_the_last_convolution():
    block, seen = ResBlock(16, 16), []
    with torch.no_grad(), torch.nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m)):
        block(torch.randn(1, 16, 4, 4))
    assert block.conv2 in seen
