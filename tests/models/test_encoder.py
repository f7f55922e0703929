"""Is the encoder the paper's: its sizes, its wavelets, its downsampling?"""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from torch import nn
from torch.nn import functional as F

from litevae import LiteVAE
from litevae.config import preset
from litevae.models.encoder import Encoder

from .precision import LAYERS, exact, relative_error, rounded_once

PARAMETERS = {"S": 1_038_308, "B": 6_753_252, "M": 32_752_740, "L": 41_424_996}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameter_count(name, expected):
    with torch.device("meta"):
        encoder = LiteVAE.from_preset(name).encoder
    assert count(encoder) == expected


def test_the_convolutional_downsampling_is_in_the_count_of_table_3():
    with torch.device("meta"):
        encoder = Encoder(preset("L"))
    assert round(count(encoder) / 1e6, 3) == 41.425
    assert round((count(encoder) - count(encoder.downsample)) / 1e6, 3) == 41.422


def wavelets_by_pywt(image: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Level l: [B, 4C, H/2^l, W/2^l], L H V D, divided by 2^l."""
    pyramid, low = [], image.numpy()
    for level in range(1, levels + 1):
        low, details = pywt.dwt2(low, "haar")
        pyramid.append(torch.from_numpy(np.concatenate([low, *details], axis=1)) / 2**level)
    return pyramid


def test_encoder_is_its_parts_wired_by_hand(make_model, image, assert_same):
    encoder = make_model().encoder.double()
    image = image.double()
    level1, level2, level3 = wavelets_by_pywt(image, 3)
    four, two, _ = encoder.downsample
    features = [
        F.conv2d(encoder.extraction[0](level1), four.weight, four.bias, stride=4, padding=1),
        F.conv2d(encoder.extraction[1](level2), two.weight, two.bias, stride=2, padding=1),
        encoder.extraction[2](level3),
    ]
    assert_same(encoder(image), encoder.aggregation(torch.cat(features, dim=1)), 1e-12)


@pytest.mark.parametrize(
    ("levels", "shared"), [((2, 3), False), ((1, 3), True), ((1, 2), False), ((1, 2, 3, 4), True), ((4,), False)]
)
def test_levels_that_are_chosen_are_wired_by_hand(make_model, assert_same, levels, shared):
    """Each by its own extractor or the one of all, and to the last level's resolution by a stride of 2 a level."""
    last = levels[-1]
    widths = (8,) * (last + 1)
    encoder = make_model(wavelet_levels=levels, shared_extraction=shared, block_out_channels=widths).encoder.double()
    assert len(encoder.extraction) == (1 if shared else len(levels))
    image = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    pyramid, features = wavelets_by_pywt(image, last), []
    for index, level in enumerate(levels):
        x = encoder.extraction[0 if shared else index](pyramid[level - 1])
        if level < last:
            layer = encoder.downsample[index]
            x = F.conv2d(x, layer.weight, layer.bias, stride=2 ** (last - level), padding=1)
        features.append(x)
    assert_same(encoder(image), encoder.aggregation(torch.cat(features, dim=1)), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_of_8_bits_are_the_values_from_minus_1_to_1(make_model, dtype, assert_same):
    encoder = make_model().encoder
    pixels = torch.randint(0, 256, (2, 24, 16, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pixels = pixels.permute(0, 3, 1, 2)
    image = pixels.double() / 127.5 - 1
    if dtype == torch.float32:
        assert_same(encoder(pixels), encoder(image.float()))
    else:
        expected = exact(encoder)(image)
        once = relative_error(rounded_once(encoder)(image.to(dtype).double()), expected)
        assert 0 < relative_error(encoder.to(dtype)(pixels), expected) < LAYERS * once


def test_layouts_and_dtypes_of_the_way_through(make_model, image):
    """channels_last everywhere, moments in NCHW for whoever views them, the posterior in float32."""
    model = make_model().bfloat16()
    formats = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *call, name=name: formats.update({name: call[2]}))
    output = model(image.bfloat16())
    assert len(formats) > 30
    assert all(result.is_contiguous(memory_format=torch.channels_last) for result in formats.values())
    assert output.latent.is_contiguous()
    assert output.latent_dist.mean.dtype == torch.float32


@pytest.mark.parametrize("height", range(8, 128, 8))
def test_every_multiple_of_8_gives_an_eighth(make_model, height):
    moments = make_model(extraction_multipliers=(1,), aggregation_multipliers=(1,)).encoder(torch.ones(1, 3, height, 8))
    assert moments.shape == (1, 8, height // 8, 1)
    assert moments.isfinite().all()


def test_an_8x8_image_of_the_smallest_size_encodes_and_trains():
    model = LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8))
    moments = model.encoder(torch.rand(1, 3, 8, 8))
    moments.square().sum().backward()
    assert moments.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.encoder.parameters())
