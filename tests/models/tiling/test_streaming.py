"""Do streams of rows take the strips as they come, and memory that does not grow with the height?"""

from __future__ import annotations

import pytest
import torch

from litevae import DiagonalGaussian
from litevae.cost import LiveTensors

from ..variants import NARROW, VARIANTS

BOUNDED = {"encoder_normalization": "smc", "decoder_normalization": "smc", "mid_block_add_attention": False}


def peak_bytes(strips) -> int:
    """Of the tensors that come to be while the strips are read, none of which is kept."""
    with LiveTensors() as tensors:
        for _ in strips():
            pass
    return tensors.peak_bytes


@torch.no_grad()
def test_memory_does_not_grow_with_the_height(make_model):
    model = make_model(**{**NARROW, **BOUNDED})
    short, tall = torch.randn(1, 4, 40, 8), torch.randn(1, 4, 120, 8)
    peaks = [peak_bytes(lambda z=z: model.decode_rows(z, 8)) for z in (short, tall)]
    assert peaks[1] - peaks[0] <= tall.nbytes  # its view counts once
    images = (torch.zeros(1, 3, height, 64) for height in (512, 1024))
    encoded = [peak_bytes(lambda x=x: model.encode_rows(x.split(64, 2), height=x.shape[2])) for x in images]
    assert encoded[1] - encoded[0] <= 3 * 1024 * 64 * 4


@torch.no_grad()
def test_a_budget_of_a_stream_is_kept(make_model):
    model = make_model(**{**NARROW, **BOUNDED})
    latent = torch.randn(1, 4, 44, 16)
    rows = []

    def strips(budget):
        for strip in model.decode_rows(latent, memory_budget=budget):
            rows.append(strip.shape[2])
            yield

    assert peak_bytes(lambda: strips(2 * 10**6)) <= 2 * 10**6 + latent.nbytes
    assert 8 < max(rows) < 32 * 8
    rows.clear()
    list(strips(1))
    assert max(rows) == 8


@torch.no_grad()
def test_an_image_may_come_as_strips(make_model, assert_same):
    model = make_model(**{**NARROW, **BOUNDED})
    image = torch.rand(2, 3, 120, 40) * 2 - 1
    whole = model.encode(image).latent_dist
    cuts = [1, 2, 40, 7, 50, 20]
    strips = list(model.encode_rows(iter(image.split(cuts, dim=2)), height=120))
    joined = DiagonalGaussian(torch.cat([strip.parameters for strip in strips], dim=2))
    assert_same(joined.mean, whole.mean)
    assert_same(joined.logvar, whole.logvar)
    pixels = (image * 127.5 + 127.5).round().to(torch.uint8)
    strips = [strip.mean for strip in model.encode_rows(pixels, 3)]
    assert_same(torch.cat(strips, dim=2), model.encode(pixels).latent_dist.mean)


@torch.no_grad()
def test_images_of_one_latent_and_of_none(make_model, assert_same):
    """Maps smaller than a kernel, which has its zeros on both sides."""
    model = make_model(**{**NARROW, **BOUNDED})
    image = torch.rand(2, 3, 24, 8) * 2 - 1
    for x in (image, image.mT):
        strips = [strip.mean for strip in model.encode_rows(x, 1)]
        assert_same(torch.cat(strips, dim=2), model.encode(x).latent_dist.mean)
        assert_same(model.tiled_encode(x).latent_dist.mean, model.encode(x).latent_dist.mean)
    for none in (image[:0], iter([image[:0]])):
        assert [strip.mean.shape for strip in model.encode_rows(none, 1, height=24)] == [(0, 4, 3, 1)]


@torch.no_grad()
@pytest.mark.parametrize("variant", ["dwt", "dwt-2"])
def test_encoders_without_parameters(make_model, variant):
    model = make_model(**{**VARIANTS[variant], "decoder_normalization": "smc"}).bfloat16()
    pixels = torch.randint(0, 256, (1, 3, 48, 32), dtype=torch.uint8)
    whole = model.encode(pixels).latent_dist
    strips = list(model.encode_rows(pixels, 1))
    assert torch.equal(torch.cat([strip.mean for strip in strips], dim=2), whole.mean)
    assert all(strip.deterministic for strip in strips)
    assert strips[0].parameters.dtype == whole.parameters.dtype


IMAGE = torch.zeros(1, 3, 32, 16)
BAD_INPUTS = [
    (lambda m: m.encode_rows([IMAGE]), ValueError, "height must be given where x is strips"),
    (lambda m: m.encode_rows([IMAGE], height=30), ValueError, "height must be a multiple of 8, got 30"),
    (lambda m: m.encode_rows([IMAGE[..., :9]], height=32), ValueError, "width that is a multiple of 8"),
    (lambda m: m.encode_rows(3), TypeError, r"x must be an image \[B, in_channels, H, W\] or strips"),
    (lambda m: m.encode_rows(iter([]), height=32), TypeError, "image must be a torch.Tensor"),
    (lambda m: list(m.encode_rows([IMAGE], height=40)), ValueError, "strips must have 40 rows together.* got 32"),
    (lambda m: list(m.encode_rows([IMAGE] * 2, height=40)), ValueError, "strips must have 40 rows together.* got 64"),
    (lambda m: list(m.encode_rows([IMAGE, IMAGE[..., :8]], height=64)), ValueError, "batch 1 and width 16"),
    (lambda m: m.encode_rows(IMAGE, rows=0), ValueError, "rows must be at least 1"),
    (lambda m: m.decode_rows(torch.zeros(1, 4, 8, 8), rows=1.0), TypeError, "rows must be an int"),
    (lambda m: m.decode_rows(torch.zeros(1, 4, 8, 8), 1, memory_budget=1), ValueError, "memory_budget must be left"),
    (lambda m: m.decode_rows(torch.zeros(1, 3, 8, 8)), ValueError, "latent must have 4 channels"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD_INPUTS)
def test_bad_inputs_are_refused(make_model, call, kind, message):
    with pytest.raises(kind, match=message):
        call(make_model(**{**NARROW, **BOUNDED}))


def test_the_caller_s_gradients_stay_on_between_strips(make_model):
    model = make_model(**{**NARROW, **BOUNDED})
    for strip in model.decode_rows(torch.zeros(1, 4, 30, 8), 4):
        assert torch.is_grad_enabled()
        assert not strip.requires_grad
