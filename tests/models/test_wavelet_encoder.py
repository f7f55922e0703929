"""Are the latents without parameters PyWavelets' sub-bands, and is nothing of them noise?"""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor
from torch.nn import functional as F

from litevae import LiteVAE

from .variants import NARROW, VARIANTS

WIDTHS = {2: (8, 8, 8), 3: (8, 8, 8, 8), 4: (8, 8, 8, 8, 8)}
DIVISORS = {"dwt": 4, "dwt-2": 16}


@pytest.fixture
def make(make_model):
    def build(kind: str, levels: int = 3, channels: int = 3) -> LiteVAE:
        latent = {"latent_channels": DIVISORS[kind] * channels, "in_channels": channels}
        places = {"wavelet_levels": tuple(range(1, levels + 1)), "block_out_channels": WIDTHS[levels]}
        return make_model(**{**NARROW, **VARIANTS[kind], **latent, **places})

    return build


def sub_bands(image: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """PyWavelets' L [B, C, h, w] and H V D, one after the other [B, 3C, h, w], divided by 2^level."""
    low, details, *_ = pywt.wavedec2(image.numpy(), "haar", level=level)
    return torch.from_numpy(low) / 2**level, torch.from_numpy(np.concatenate(details, axis=1)) / 2**level


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 32, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_dwt_is_the_last_level_of_pywavelets(make, image, assert_same, levels):
    mean = make("dwt", levels).encode(image.float()).latent_dist.mean
    low, details = sub_bands(image, levels)
    assert_same(mean, torch.cat([low, details], dim=1).float(), 1e-6)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_dwt_2_is_the_level_before_it_by_space_to_depth(make, image, assert_same, levels):
    mean = make("dwt-2", levels).double().encode(image).latent_dist.mean
    packed = torch.cat(sub_bands(image, levels - 1), dim=1)  # [B, 12, 2h, 2w]
    batch, channels, height, width = packed.shape
    blocks = packed.reshape(batch, channels, height // 2, 2, width // 2, 2)
    expected = blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)
    assert_same(mean, expected, 1e-12)


def test_dwt_2_has_the_finer_details_beside_dwt(make, assert_same):
    """Both with the transform's own scale, one is the other by an orthogonal 48x48 matrix, on every image."""
    image = torch.randn(3, 3, 32, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = 4 * make("dwt-2").double().encode(image).latent_dist.mean
    low, coarse = (8 * part for part in sub_bands(image, 3))
    fine = F.pixel_unshuffle(4 * sub_bands(image, 2)[1], 2)
    theirs = torch.cat([low, coarse, fine], dim=1)  # [B, 12 + 36, 4, 6]
    one, other = (x.permute(0, 2, 3, 1).reshape(-1, 48) for x in (ours, theirs))  # 72 positions
    matrix = torch.linalg.lstsq(one, other).solution
    assert_same(one @ matrix, other, 1e-12)
    assert_same(matrix @ matrix.T, torch.eye(48, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("kind", DIVISORS)
def test_the_posterior_has_no_noise(make, image, kind):
    for model in (make(kind), make(kind).bfloat16()):
        posterior = model.encode(image).latent_dist
        assert not posterior.std.any()
        assert not posterior.var.any()
        assert not posterior.kl().any()
        assert torch.equal(posterior.sample(), posterior.mode())
        output = model(image, sample_posterior=True)
        assert torch.equal(output.sample, model(image).sample)


def test_images_of_other_channels_and_gradients_to_the_image(make, image):
    model = make("dwt", channels=1).double()
    gray = image[:, :1].clone().requires_grad_()
    mean = model.encode(gray).latent_dist.mean
    (gradient,) = torch.autograd.grad(mean[0, 0, 0, 0], gray)
    assert gradient[0, 0, :8, :8].allclose(torch.full((8, 8), 1 / 64, dtype=torch.float64), rtol=1e-12, atol=0)
    assert gradient.count_nonzero() == 64


def test_a_folded_copy_moves_and_takes_pixels(make_model):
    """Nothing of an encoder without parameters stays on meta, where a folded copy is built."""
    arguments = {**NARROW, **VARIANTS["dwt"], "decoder_normalization": "smc"}
    folded = make_model(**arguments).bfloat16().fold_smc()
    assert not list(folded.encoder.buffers())
    pixels = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    assert torch.equal(folded.encode(pixels).latent_dist.mode()[:, :3], torch.ones(1, 3, 2, 2, dtype=torch.bfloat16))
