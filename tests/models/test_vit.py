"""Is the ViT one of torch's, with positions that are exact at their own size?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.vit import ViT


def transformer_layer(block: nn.Module) -> nn.TransformerEncoderLayer:
    """torch's pre-norm layer with GELU and the block's weights."""
    width = block.norm1.normalized_shape[0]
    options = {"dropout": 0.0, "activation": "gelu", "layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
    layer = nn.TransformerEncoderLayer(width, block.heads, 4 * width, dtype=torch.float64, **options)
    names = {
        "self_attn.in_proj_weight": "to_qkv.weight",
        "self_attn.in_proj_bias": "to_qkv.bias",
        "self_attn.out_proj.weight": "to_out.weight",
        "self_attn.out_proj.bias": "to_out.bias",
    }
    state = block.state_dict()
    layer.load_state_dict({name: state[names.get(name, name)] for name in layer.state_dict()})
    return layer


@pytest.fixture
def vit() -> ViT:
    torch.manual_seed(0)
    network = ViT(12, 10, width=12, depth=3, heads=3).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def by_hand(vit: ViT, x: Tensor, positions: Tensor) -> Tensor:
    tokens = torch.einsum("oi,bihw->bhwo", vit.conv_in.weight[:, :, 0, 0], x) + vit.conv_in.bias
    tokens = (tokens + positions.permute(0, 2, 3, 1)).reshape(len(x), -1, tokens.shape[-1])  # row after row
    for block in vit.blocks:
        tokens = transformer_layer(block)(tokens)
    tokens = F.layer_norm(tokens, tokens.shape[-1:], vit.norm.weight, vit.norm.bias, 1e-6)
    grid = tokens.reshape(len(x), *x.shape[-2:], -1).permute(0, 3, 1, 2)
    return F.conv2d(grid, vit.conv_out.weight, vit.conv_out.bias, padding=1)


def test_block_is_torch_s_pre_norm_layer(vit, assert_same):
    tokens = torch.randn(2, 15, 12, dtype=torch.float64)
    assert_same(vit.blocks[0](tokens), transformer_layer(vit.blocks[0])(tokens), 1e-12)


def test_positions_are_the_parameters_at_16x16(vit, assert_same):
    x = torch.randn(2, 12, 16, 16, dtype=torch.float64)
    assert_same(vit(x), by_hand(vit, x, vit.positions), 1e-12)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (7, 20), (1, 1)])
def test_positions_at_other_sizes_are_interpolated(vit, assert_same, height, width):
    """One axis after the other, by the cubic kernel with a = -0.75 that torch documents, borders repeated."""
    x = torch.randn(2, 12, height, width, dtype=torch.float64)
    rows, columns = cubic_matrix(height), cubic_matrix(width)
    positions = torch.einsum("ai,bj,ncij->ncab", rows, columns, vit.positions)
    assert_same(vit(x), by_hand(vit, x, positions), 1e-12)


def cubic_matrix(size: int) -> Tensor:
    """[size, 16]: the weight of each of 16 positions in each of `size`, whose pixels have the same extent in all."""
    matrix = torch.zeros(size, 16, dtype=torch.float64)
    for row in range(size):
        centre = (row + 0.5) * 16 / size - 0.5
        for tap in range(int(centre // 1) - 1, int(centre // 1) + 3):
            matrix[row, min(max(tap, 0), 15)] += cubic(abs(centre - tap))
    return matrix


def cubic(distance: float, a: float = -0.75) -> float:
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a if distance < 2 else 0.0


def test_dropout_only_while_training(assert_same):
    torch.manual_seed(0)
    dropped, plain = (ViT(12, 8, width=8, depth=2, heads=2, dropout=dropout) for dropout in (0.5, 0.0))
    plain.load_state_dict(dropped.state_dict())
    x = torch.randn(1, 12, 4, 4)
    assert_same(dropped.eval()(x), plain(x))
    assert not torch.allclose(dropped.train()(x), plain(x), atol=1e-3)
