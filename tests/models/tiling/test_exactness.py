"""Are tiles and strips of rows the whole, pixel by pixel?

In float64 up to its rounding. Bit for bit where every sum is exact in any order, so that no library's kernel can hide a
wrong position or make a right one differ: integer weights, and a remainder in place of SiLU. In float32 bit for bit
where the kernels add in the same order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from litevae import LiteVAE
from litevae.config import LiteVAEConfig
from litevae.cost import multiply_accumulates
from litevae.models.decoder import Decoder
from litevae.models.tiling.layers import decoder_layers
from litevae.models.tiling.rows import spans_read, stream_rows
from litevae.models.tiling.statistics import by_whole_statistics

from ..variants import NARROW, VARIANTS

BOUNDED = {"decoder_normalization": "smc", "mid_block_add_attention": False}
DECODERS: dict[str, dict[str, Any]] = {
    "smc": {},
    "none": {"decoder_normalization": "none"},
    "wavelet": {"output_type": "wavelet"},
    "f4": VARIANTS["f4"],
    "f16-wavelet": {**VARIANTS["f16"], "output_type": "wavelet"},
    "quant_conv": {"use_quant_conv": True},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "smc": {"encoder_normalization": "smc"},
    "none-shared": {"encoder_normalization": "none", "shared_extraction": True, "use_quant_conv": True},
    "last-two-levels": {"encoder_normalization": "smc", **VARIANTS["last-two-levels"]},
    "f4": {"encoder_normalization": "smc", **VARIANTS["f4"]},
    "f16": {"encoder_normalization": "smc", **VARIANTS["f16"]},
    "dwt": VARIANTS["dwt"],
    "dwt-2": VARIANTS["dwt-2"],
}


class Remainder(nn.Module):
    """Of a division by 8: integers below 8, and 0 of 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.remainder(8)


def with_integers(model: LiteVAE) -> LiteVAE:
    """Every weight -1, 0 or 1, at most two in an output channel, and no SiLU: all sums are integers below 2^24."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        for child, activation in module.named_children():
            if isinstance(activation, nn.SiLU):
                setattr(module, child, Remainder())
        if isinstance(module, nn.Conv2d):
            weight = torch.zeros(module.weight.shape).flatten(1)
            for row in weight:
                row[torch.randint(len(row), (2,), generator=generator)] = torch.tensor([1.0, -1.0])
            module.weight.data = weight.view(module.weight.shape).contiguous(memory_format=torch.channels_last)
            module.bias.data = torch.randint(-3, 4, module.bias.shape, generator=generator).float()
    return model


def integers(*shape: int) -> torch.Tensor:
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(1)).float()


@pytest.fixture
def decoder(make_model):
    """decoder(**arguments): a LiteVAE whose decoder has a bounded reach."""
    return lambda **arguments: make_model(**{**NARROW, **BOUNDED, **arguments})


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "height", "width", "side"),
    [
        *((name, 13, 17, 5) for name in ("smc", "wavelet", "f4")),
        *(pytest.param(name, 13, 17, 5, marks=pytest.mark.slow) for name in ("none", "f16-wavelet", "quant_conv")),
        ("smc", 9, 40, 16),
        ("wavelet", 1, 9, 2),
    ],
)
def test_tiles_decode_the_same_in_float64(decoder, name, height, width, side):
    model = decoder(**DECODERS[name]).double()
    latent = torch.randn(2, 4, height, width, dtype=torch.float64)
    whole = model.decode(latent).sample
    model.enable_tiling(side)
    tiled = model.decode(latent).sample
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().max() <= 1e-13 * whole.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("none", marks=pytest.mark.slow),
        "f4",
        pytest.param("f16-wavelet", marks=pytest.mark.slow),
        "quant_conv",
    ],
)
def test_tiles_and_rows_decode_the_same_integers(decoder, name):
    model = with_integers(decoder(**{**DECODERS[name], "decoder_normalization": "none"}))
    latent = integers(2, 4, 21, 24)
    whole = model.decode(latent).sample
    assert 0 < whole.abs().max() < 2**22
    for side in (5, 16):
        model.enable_tiling(side)
        assert torch.equal(model.decode(latent).sample, whole)
    for rows in (1, 40):
        assert torch.equal(torch.cat(list(model.decode_rows(latent, rows)), dim=2), whole)


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
def test_tiles_and_rows_encode_the_same_in_float64(make_model, name):
    model = make_model(**{**NARROW, **BOUNDED, **ENCODERS[name]}).double()
    multiple = model.architecture.downsampling
    image = torch.rand(2, 3, 9 * multiple, 6 * multiple, dtype=torch.float64) * 2 - 1
    whole = model.encode(image).latent_dist.parameters
    strips = [strip.parameters for strip in model.encode_rows(image, rows=2)]
    model.enable_tiling(4)
    for moments in (model.encode(image).latent_dist.parameters, torch.cat(strips, dim=2)):
        assert (moments - whole).abs().max() <= 1e-13 * whole.abs().max()


@torch.no_grad()
def test_tiles_and_rows_encode_the_same_integers(make_model):
    arguments = {"encoder_normalization": "none", "decoder_normalization": "none", "mid_block_add_attention": False}
    model = with_integers(make_model(**{**NARROW, **arguments}))
    image = 64 * integers(2, 3, 104, 72)
    whole = model.encode(image).latent_dist.parameters
    assert 0 < whole.abs().max() < 2**22
    strips = [strip.parameters for strip in model.encode_rows(image, rows=1)]
    assert torch.equal(torch.cat(strips, dim=2), whole)
    model.enable_tiling(3)
    assert torch.equal(model.encode(image).latent_dist.parameters, whole)


@torch.no_grad()
@pytest.mark.parametrize("name", ["smc", pytest.param("none", marks=pytest.mark.slow), "wavelet"])
def test_rows_decode_the_same_in_float64(decoder, name):
    model = decoder(**DECODERS[name]).double()
    latent = torch.randn(1, 4, 41, 6, dtype=torch.float64)
    whole = model.decode(latent).sample
    for rows in (1, 5, 64):
        strips = list(model.decode_rows(latent, rows))
        assert all(strip.shape[2] > 0 for strip in strips)
        assert (torch.cat(strips, dim=2) - whole).abs().max() <= 1e-13 * whole.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", ["smc", pytest.param("none", marks=pytest.mark.slow), "wavelet"])
def test_tiles_and_rows_decode_the_same_bits_in_float32(decoder, name):
    model = decoder(**DECODERS[name])
    latent = torch.randn(1, 4, 40, 72)
    whole = model.decode(latent).sample
    model.enable_tiling(24)
    assert torch.equal(model.decode(latent).sample, whole)
    assert torch.equal(torch.cat(list(model.decode_rows(latent, 4)), dim=2), whole)


@torch.no_grad()
def test_attention_alone_leaves_the_bits(decoder):
    """What is at the latent's resolution is whole then, and nothing is gathered."""
    model = decoder(mid_block_add_attention=True)
    latent = torch.randn(1, 4, 24, 40)
    whole = model.decode(latent).sample
    model.enable_tiling(16, statistics="exact")
    assert torch.equal(model.decode(latent).sample, whole)


@torch.no_grad()
@pytest.mark.parametrize(("output_type", "reach"), [("image", 138), ("wavelet", 72)])
def test_the_halo_is_what_a_latent_reaches(output_type, reach):
    """Of Stable Diffusion's layers: the pixels that change with one place of the latent, against the windows."""
    arguments = {"block_out_channels": (4, 4, 4, 4), "output_type": output_type, **BOUNDED}
    decoder = LiteVAE(**arguments).decoder.double()
    latent = torch.zeros(1, 4, 45, 45, dtype=torch.float64)
    before = decoder(latent)
    latent[..., 22, 22] = 1e6
    changed = (decoder(latent) != before).any(dim=1)[0].any(dim=1).nonzero().flatten()
    scale = before.shape[-1] // 45
    assert (changed.min().item(), changed.max().item()) == (22 * scale - reach, 23 * scale - 1 + reach)
    layers = decoder_layers(decoder)
    spans = [spans_read(layers, (row, row + 1), layers.sizes(45))[0] for row in range(45 * scale)]
    seen = [row for row, (first, last) in enumerate(spans) if first <= 22 < last]
    assert (seen[0], seen[-1]) == (changed.min().item(), changed.max().item())


@pytest.mark.parametrize(("side", "most"), [(64, 1.11), (128, 1.06)])
def test_arithmetic_of_tiles(side, most):
    """Of Stable Diffusion's decoder: of a band inside, against its share of the whole."""
    config = LiteVAEConfig(decoder_normalization="smc", mid_block_add_attention=False)
    with torch.device("meta"), torch.no_grad():
        decoder = Decoder(config)
        latent = torch.empty(1, 4, 2 * side, side + 64)
        share = multiply_accumulates(decoder, latent) * side / (side + 64)
        layers, columns = decoder_layers(decoder), (32 * 8, (32 + side) * 8)

        def band(x: torch.Tensor) -> None:
            assert sum(x.shape[2] for x in stream_rows(layers, x.split(side, 2), *x.shape[2:], columns)) == 16 * side

        taken = multiply_accumulates(band, latent)
    assert 1 < taken / share <= most


@pytest.mark.parametrize(("output_type", "most"), [("image", 5.1), ("wavelet", 8.0)])
def test_arithmetic_of_exact_statistics(output_type, most):
    """As `enable_tiling` says; of one tile, without a halo."""
    config = LiteVAEConfig(output_type=output_type, mid_block_add_attention=False)
    with torch.device("meta"), torch.no_grad():
        decoder, latent = Decoder(config), torch.empty(1, 4, 64, 64)
        taken = multiply_accumulates(lambda x: by_whole_statistics(decoder, x, 64), latent)
        whole = multiply_accumulates(decoder, latent)
    assert most - 1 < taken / whole <= most
