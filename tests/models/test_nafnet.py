"""Is the NAFNet its papers': the block rebuilt in float64, the stack around it?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.nafnet import NAFBlock, NAFNet


def randomized(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Over the channels of a position, with the biased variance and eps 1e-6 (LayerNorm2d of NAFNet)."""
    mean = x.mean(dim=1, keepdim=True)
    variance = (x - mean).square().mean(dim=1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def pointwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 1x1 convolution as a product with its matrix."""
    return torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], x) + layer.bias[:, None, None]


def depthwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Each channel with its own 3x3 kernel, one channel at a time."""
    parts = zip(x.split(1, dim=1), layer.weight.split(1), layer.bias.split(1), strict=True)
    return torch.cat([F.conv2d(part, weight, bias, padding=1) for part, weight, bias in parts], dim=1)


def block_by_hand(block: NAFBlock, x: Tensor) -> Tensor:
    """Chen et al. 2022, Fig. 3c: layer norm, 1x1, depthwise 3x3, SimpleGate, SCA, 1x1; layer norm, 1x1, gate, 1x1."""
    channels = x.shape[1]
    h = depthwise(pointwise(layer_norm(x, block.norm1), block.conv1), block.conv2)  # [B, 2C, H, W]
    h = h[:, :channels] * h[:, channels:]
    pooled = h.flatten(2).sum(2) / h[0, 0].numel()  # [B, C]
    factor = pooled @ block.attention.weight[:, :, 0, 0].T + block.attention.bias
    h = pointwise(h * factor[:, :, None, None], block.conv3)
    y = x + block.beta * h
    h = pointwise(layer_norm(y, block.norm2), block.conv4)
    return y + block.gamma * pointwise(h[:, :channels] * h[:, channels:], block.conv5)


def test_block_is_that_of_the_paper(assert_same):
    block = randomized(NAFBlock(6, dropout=0.0))
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    assert_same(block(x), block_by_hand(block, x), 1e-12)


def test_network_is_its_blocks_between_two_convolutions(assert_same):
    network = randomized(NAFNet(12, 10, width=6, blocks=3))
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64)
    h = F.conv2d(x, network.conv_in.weight, network.conv_in.bias, padding=1)
    for block in network.blocks:
        h = block_by_hand(block, h)
    assert_same(network(x), F.conv2d(h, network.conv_out.weight, network.conv_out.bias, padding=1), 1e-12)


def test_new_block_is_the_identity():
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(NAFBlock(8, dropout=0.5)(x), x)


def test_parameters_of_a_block():
    """7 C^2 of the 1x1 convolutions, 18 C of the 3x3 kernels, 15 C of biases, norms, beta and gamma."""
    for width, expected in {16: 2_320, 32: 8_224, 48: 17_712, 64: 30_784, 96: 67_680, 128: 118_912}.items():
        with torch.device("meta"):
            assert sum(parameter.numel() for parameter in NAFBlock(width, 0.0).parameters()) == expected


def test_what_a_position_sees_is_the_whole_image():
    """The channel attention pools over all positions."""
    network = randomized(NAFNet(12, 4, width=6, blocks=1)).eval()
    x = torch.randn(1, 12, 16, 16, dtype=torch.float64)
    changed = x.clone()
    changed[..., -1, -1] += 1
    assert not torch.allclose(network(x)[..., 0, 0], network(changed)[..., 0, 0], rtol=1e-9, atol=0)
