"""Does each class of autoencoder encode and decode as diffusers does it, and are others refused by name?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import litevae.models  # noqa: F401  # before diffusers' autoencoders
from litevae import LiteVAE, StableDiffusionVAE
from litevae.evaluation.autoencoders import BicubicBaseline, EvaluatedAutoencoder, check_size

WIDTHS = (32, 32, 32, 32)


def deep_compression() -> nn.Module:
    from diffusers import AutoencoderDC

    blocks: dict[str, Any] = {}
    for part in ("encoder", "decoder"):
        blocks |= {
            f"{part}_block_out_channels": (16, 32, 32),
            f"{part}_layers_per_block": (1, 1, 1),
            f"{part}_block_types": "ResBlock",
        }
    return AutoencoderDC(latent_channels=8, attention_head_dim=8, **blocks)


def tiny() -> nn.Module:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(encoder_block_out_channels=WIDTHS, decoder_block_out_channels=WIDTHS)


def flux2() -> nn.Module:
    import diffusers

    if not hasattr(diffusers, "AutoencoderKLFlux2"):
        pytest.skip(f"diffusers {diffusers.__version__} has no AutoencoderKLFlux2")
    model: nn.Module = diffusers.AutoencoderKLFlux2(block_out_channels=WIDTHS)
    return model


CASES = {
    "LiteVAE": (lambda: LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16)), 4, 8),
    "StableDiffusionVAE": (lambda: StableDiffusionVAE.from_architecture(block_out_channels=WIDTHS), 4, 8),
    "AutoencoderTiny": (tiny, 4, 8),
    "AutoencoderDC": (deep_compression, 8, 4),
    "AutoencoderKLFlux2": (flux2, 32, 8),
}


def decoded(model: Any, latents: Tensor) -> Tensor:
    return model.decode(latents).sample.clamp(-1, 1)


@pytest.mark.parametrize("name", CASES)
def test_encodes_and_decodes_as_the_class_itself(name: str):
    make, channels, factor = CASES[name]
    torch.manual_seed(0)
    model: Any = make()
    evaluated = EvaluatedAutoencoder(model, "mine")
    assert (evaluated.latent_channels, evaluated.downsampling) == (channels, factor)
    images = torch.rand(2, 3, 64, 32) * 2 - 1
    posterior = evaluated.encode(images)
    with torch.no_grad():
        output = model.encode(images)
        mean = output.latent_dist.mean if hasattr(output, "latent_dist") else output[0]
        torch.testing.assert_close(posterior.mean, mean, rtol=0, atol=0)
        torch.testing.assert_close(evaluated.decode(mean), decoded(model, mean), rtol=0, atol=0)
    assert (posterior.std > 0).all() == hasattr(output, "latent_dist")
    counted = [evaluated.describe()[f"{part}_parameters"] for part in ("encoder", "decoder")]
    assert sum(counted) == sum(parameter.numel() for parameter in model.parameters())


def test_the_noise_of_an_image_is_its_own():
    evaluated = EvaluatedAutoencoder(CASES["LiteVAE"][0](), "mine")
    posterior = evaluated.encode(torch.zeros(3, 3, 32, 32))
    together = posterior.sample(7, (4, 5, 6))
    other_order = posterior.sample(7, (6, 4, 5))
    noise = (together - posterior.mean) / posterior.std
    assert torch.equal(together[0], other_order[1])  # the three images are the same
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, posterior.sample(8, (4, 5, 6)))
    assert abs(noise.mean()) < 5 / noise.numel() ** 0.5


def test_half_precision_is_cast_to_and_from():
    evaluated = EvaluatedAutoencoder(CASES["LiteVAE"][0]().to(torch.bfloat16), "mine")
    posterior = evaluated.encode(torch.zeros(1, 3, 32, 32))
    assert posterior.mean.dtype == evaluated.decode(posterior.mean).dtype == torch.float32
    assert evaluated.describe()["dtype"] == "bfloat16"


def gray() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(in_channels=1)


def alpha() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(out_channels=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (gray, r"MODEL must take RGB images \(in_channels=3\), got 'gray with in_channels=1'"),
        (lambda: StableDiffusionVAE(gray()), r"MODEL must take RGB images \(in_channels=3\), got 'gray with in_cha"),
        (alpha, r"MODEL must encode and decode images .*, got 'gray, which makes \[1, 4, 128, 128\] of one'"),
        (
            lambda: nn.Conv2d(3, 3, 1),
            r"MODEL must encode and decode images \[B, 3, 128, 128\], got .*a Conv2d that fails",
        ),
    ],
)
def test_other_models_are_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        EvaluatedAutoencoder(make(), "gray")


def test_sizes_that_do_not_fit_are_refused():
    baseline = BicubicBaseline(torch.device("cpu"))
    check_size(baseline, 64)
    with pytest.raises(ValueError, match="--sizes must be a multiple of 8 for bicubic, got 100; try 96"):
        check_size(baseline, 100)


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_the_baseline_keeps_a_position_of_so_many(factor):
    """scikit-image's photograph against Pillow's own bicubic, which has the same filter down and none up."""
    import numpy as np
    from PIL import Image
    from skimage import data

    photograph = data.astronaut()[:256, :256]
    images = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    baseline = BicubicBaseline(torch.device("cpu"), downsampling=factor)
    said = baseline.describe()
    assert (said["class"], said["downsampling"]) == (f"{factor}x down, bicubic up", factor)
    ours = baseline.reconstruct(images)[0].permute(1, 2, 0).add(1).mul(127.5)
    small = Image.fromarray(photograph).resize((256 // factor, 256 // factor), Image.Resampling.BICUBIC)
    pillow = np.asarray(small.resize((256, 256), Image.Resampling.BICUBIC), dtype=np.float64)
    # torch's bicubic without antialiasing has a = -0.75, Pillow's a = -0.5: overshoots at edges differ
    assert np.abs(ours.numpy() - pillow).mean() < 2
