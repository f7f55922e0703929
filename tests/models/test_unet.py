"""Is the UNet wired as appendix G's?"""

from __future__ import annotations

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.blocks import ResBlock, group_count
from litevae.models.unet import UNet


def diffusers_block(block: ResBlock) -> ResnetBlock2D:
    before, after = block.conv1.in_channels, block.conv1.out_channels
    groups = {"groups": group_count(before), "groups_out": group_count(after)}
    oracle = ResnetBlock2D(in_channels=before, out_channels=after, temb_channels=None, eps=1e-6, **groups)
    oracle.load_state_dict(block.state_dict())
    return oracle


def test_unet_is_its_blocks_wired_by_hand(assert_same):
    torch.manual_seed(0)
    unet = UNet(12, 10, channels=16, multipliers=(1, 2))
    down = [diffusers_block(block) for block in unet.encoder_path]
    middle = [diffusers_block(block) for block in unet.middle]
    up = [diffusers_block(block) for block in unet.decoder_path]
    assert (len(down), len(middle), len(up)) == (4, 2, 4)
    x = torch.randn(2, 12, 6, 8)

    h = F.conv2d(x, unet.conv_in.weight, unet.conv_in.bias, padding=1)
    skip1 = down[0](h, None)
    skip2 = down[1](skip1, None)
    skip3 = down[2](skip2, None)
    skip4 = down[3](skip3, None)
    h = middle[1](middle[0](skip4, None), None)
    h = up[0](torch.cat([h, skip4], dim=1), None)
    h = up[1](torch.cat([h, skip3], dim=1), None)
    h = up[2](torch.cat([h, skip2], dim=1), None)
    h = up[3](torch.cat([h, skip1], dim=1), None)
    assert_same(unet(x), F.conv2d(h, unet.conv_out.weight, unet.conv_out.bias, padding=1))


@pytest.mark.parametrize("normalization", ["smc", "none"])
def test_unet_without_norms_is_plain_convolutions_wired_by_hand(assert_same, normalization):
    torch.manual_seed(0)
    unet = UNet(12, 10, channels=6, multipliers=(1, 2), normalization=normalization).double()
    for parameter in unet.parameters():
        nn.init.normal_(parameter)
    assert not any("norm" in name for name in unet.state_dict())

    def convolve(x: Tensor, layer: nn.Module) -> Tensor:
        weight = layer.weight
        if normalization == "smc":  # Eq. 3
            weight = layer.scales[:, None, None] * weight
            weight = layer.gain * weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        return F.conv2d(x, weight, layer.bias, padding=1)

    def run(block: nn.Module, x: Tensor) -> Tensor:
        hidden = convolve(F.silu(convolve(F.silu(x), block.conv1)), block.conv2)
        shortcut = block.conv_shortcut
        return hidden + (x if shortcut is None else F.conv2d(x, shortcut.weight, shortcut.bias))

    x = torch.randn(2, 12, 6, 8, dtype=torch.float64)
    h = F.conv2d(x, unet.conv_in.weight, unet.conv_in.bias, padding=1)
    skips = []
    for block in unet.encoder_path:
        skips.append(h := run(block, h))
    for block in unet.middle:
        h = run(block, h)
    for block, skip in zip(unet.decoder_path, reversed(skips), strict=True):
        h = run(block, torch.cat([h, skip], dim=1))
    expected = F.conv2d(h, unet.conv_out.weight, unet.conv_out.bias, padding=1)
    for is_enabled in (True, False):  # without gradients sums are fused
        with torch.set_grad_enabled(is_enabled):
            assert_same(unet(x), expected, 1e-11)


@pytest.mark.parametrize(
    ("channels", "multipliers", "expected"),
    [
        (16, (1, 2, 2), [(16, 16), (16, 16), (16, 32), (32, 32), (32, 32), (32, 32)]),
        (32, (1, 2, 3), [(32, 32), (32, 32), (32, 64), (64, 64), (64, 96), (96, 96)]),
    ],
)
def test_widths(channels, multipliers, expected):
    unet = UNet(12, 12, channels, multipliers)
    assert [(block.conv1.in_channels, block.conv1.out_channels) for block in unet.encoder_path] == expected
    outputs = [after for _, after in expected][::-1]
    joined = [(before + skip, skip) for before, skip in zip([outputs[0], *outputs], outputs, strict=False)]
    assert [(block.conv1.in_channels, block.conv1.out_channels) for block in unet.decoder_path] == joined


def test_the_aggregator_of_b_has_the_parameters_of_table_20():
    with torch.device("meta"):
        unet = UNet(36, 8, channels=32, multipliers=(1, 2, 3))
    assert sum(parameter.numel() for parameter in unet.parameters()) == pytest.approx(1.69e6, abs=0.005e6)
