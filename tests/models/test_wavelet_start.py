"""Is an untrained model with the wavelet initialization the codec that PyWavelets and SciPy make, and can it learn?"""

import re
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from scipy import ndimage
from skimage import data, metrics
from torch import Tensor

from litevae import LiteVAE
from litevae.models.initialize import INITIAL_LOGVAR, initialize
from litevae.models.wavelet_start import DETAIL_GAIN, LOW_PASS_GAIN

NARROW = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "decoder_normalization": "smc"}
WITH_NORM = {"decoder_normalization": "group_norm"}
EXACT: dict[str, dict[str, Any]] = {
    "quickstart": {"block_out_channels": (32, 32, 64, 64)},
    "none, no attention": {"decoder_normalization": "none", "mid_block_add_attention": False},
    "inner group norm": {**WITH_NORM, "decoder_outer_norm": False},
    "sub-bands": {"output_type": "wavelet"},
    "12 channels": {"latent_channels": 12, "use_quant_conv": True},
    "more channels than sub-bands": {"latent_channels": 16, "wavelet_levels": (2, 3), "shared_extraction": True},
    "smc encoder": {"encoder_normalization": "smc"},
    "nafnet": {"extraction": "nafnet", "nafnet_width": 16, "nafnet_blocks": 2},
    "f4": {"wavelet_levels": (1, 2), "block_out_channels": (16, 32, 32)},
    "f16": {"wavelet_levels": (1, 2, 3, 4), "block_out_channels": (8, 16, 16, 16, 16)},
    "dwt": {"encoder_type": "dwt", "latent_channels": 12},
    "dwt-2": {"encoder_type": "dwt-2", "latent_channels": 48},
    "grey": {"in_channels": 1, "out_channels": 1, "latent_channels": 1},
}
NEARLY: dict[str, tuple[dict[str, Any], float]] = {
    # The norm's scale is too small by the share E[c^2] / (2 * 16^2) of c, or its like; E[c^2] <= 1, and |c| <= 1.
    "groups of 4": ({**WITH_NORM, "block_out_channels": (128, 16, 16, 16)}, 1 / 500),
    "groups of 4 in a wavelet decoder": (
        {"decoder_outer_norm": True, "block_out_channels": (128, 16, 16, 16), "output_type": "wavelet"},
        1 / 500,
    ),
    # -c + K / 3 and c + K / 3 lie off the SiLU's centre by the scale's share of K / 3.
    "groups of 3": ({**WITH_NORM, "block_out_channels": (96, 16, 16, 16)}, 1 / 40),
    "vit": ({"aggregation": "vit"}, 1 / 100),
    "vit, 12 channels": ({"aggregation": "vit", "latent_channels": 12}, 1 / 100),
}


def untrained(overrides: dict[str, Any]) -> LiteVAE:
    torch.manual_seed(0)
    model = LiteVAE.from_preset("S", **{**NARROW, **overrides})
    initialize(model, "wavelet")
    return model


def photograph(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Pixels [height, width, channels] of chelsea in [-1, 1]."""
    return data.chelsea()[:height, :width, :channels].astype(np.float64) / 127.5 - 1


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float()  # [1, C, H, W]


def bands(channel: np.ndarray, levels: int) -> list[np.ndarray]:
    """L H V D of the last level by PyWavelets, divided by 2^levels: the mean of each block, and its differences."""
    low, details, *_ = pywt.wavedec2(channel, "haar", level=levels)
    return [band / 2**levels for band in (low, *details)]


def codec(pixels: np.ndarray, levels: int) -> np.ndarray:
    """L of the last level, sharpened; repeated and smoothed by [1 2 1] / 4 along both axes, `levels` times."""
    result = []
    for channel in pixels.transpose(2, 0, 1):
        image = filtered(bands(channel, levels)[0], [-0.25, 1.5, -0.25])
        for _ in range(levels):
            image = filtered(image.repeat(2, axis=0).repeat(2, axis=1), [0.25, 0.5, 0.25])
        result.append(image)
    return np.stack(result, axis=-1)


def filtered(image: np.ndarray, taps: list[float]) -> np.ndarray:
    """By `taps` along both axes, zeros outside."""
    for axis in (0, 1):
        image = ndimage.convolve1d(image, taps, axis=axis, mode="constant")
    return image


def largest_error(overrides: dict[str, Any]) -> float:
    model = untrained(overrides).eval()
    pixels = photograph(96, 128, model.architecture.in_channels)
    with torch.no_grad():
        result = model(tensor(pixels)).sample[0].permute(1, 2, 0).numpy()
    return float(np.abs(result - codec(pixels, model.architecture.wavelet_levels[-1])).max())


@pytest.mark.parametrize("name", EXACT)
def test_the_untrained_model_is_the_codec(name: str) -> None:
    """To float32's rounding: a value of at most 1 passes 30 layers of at most 9 terms that are not 0."""
    assert largest_error(EXACT[name]) < 30 * 9 * 2**-24


@pytest.mark.parametrize("name", NEARLY)
def test_the_untrained_model_is_nearly_the_codec_through_a_norm(name: str) -> None:
    overrides, bound = NEARLY[name]
    assert largest_error(overrides) < bound


@pytest.mark.parametrize("quant_conv", [False, True])
@torch.no_grad()
def test_the_latent_is_the_last_level(quant_conv: bool) -> None:
    """L of each colour, then H, V, D of the brightness, of red - blue and of green against both; little noise."""
    pixels = photograph(64, 64)
    posterior = untrained({"latent_channels": 12, "use_quant_conv": quant_conv}).encode(tensor(pixels)).latent_dist
    red, green, blue = (bands(pixels[..., channel], 3) for channel in range(3))
    expected = [LOW_PASS_GAIN * colour[0] for colour in (red, green, blue)]
    for factors in (np.array([1, 1, 1]) / 3**0.5, np.array([1, 0, -1]) / 2**0.5, np.array([1, -2, 1]) / 6**0.5):
        for band in (1, 2, 3):
            parts = [colour[band] for colour in (red, green, blue)]
            expected.append(DETAIL_GAIN * sum(f * part for f, part in zip(factors, parts, strict=True)))
    np.testing.assert_allclose(posterior.mean[0].numpy(), np.stack(expected), rtol=0, atol=1e-5)
    assert posterior.logvar.mean().item() == pytest.approx(INITIAL_LOGVAR, abs=0.5)


@torch.no_grad()
def test_the_held_out_photographs_are_there_before_the_first_step() -> None:
    """Bicubic interpolation from an eighth has 25.4 dB, `residual` 12.3."""
    model, scores = untrained(EXACT["quickstart"]), []
    for image in (data.chelsea(), data.coffee()):
        pixels = image[: image.shape[0] // 8 * 8, : image.shape[1] // 8 * 8]
        result = model(tensor(pixels / 127.5 - 1)).sample[0].permute(1, 2, 0).clamp(-1, 1).numpy()
        scores.append(metrics.peak_signal_noise_ratio(pixels / 127.5 - 1, result, data_range=2))
    assert np.mean(scores) == pytest.approx(25.3, abs=0.2)


@pytest.mark.parametrize(
    "name", ["quickstart", "12 channels", "sub-bands", "nafnet", "f16", "vit", "groups of 4", "groups of 3"]
)
def test_every_parameter_moves_within_a_few_steps(name: str) -> None:
    model = untrained(EXACT[name] if name in EXACT else NEARLY[name][0])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = tensor(photograph(64, 64))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for _ in range(4):
        optimizer.zero_grad()
        (model(x, sample_posterior=True).sample - x).square().sum().backward()
        optimizer.step()
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert not still


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"latent_channels": 2}, "latent_channels must be at least in_channels, 3, for initialization='wavelet'"),
        ({"out_channels": 1}, "out_channels must be in_channels, 3, for initialization='wavelet'"),
        (WITH_NORM, "decoder_outer_norm must be False for initialization='wavelet' with block_out_channels[0]=32, 1 "),
        ({**WITH_NORM, "block_out_channels": (64, 32, 32, 32)}, "block_out_channels[0]=64, 2 to a group"),
        (
            {**WITH_NORM, "block_out_channels": (128, 8, 16, 16)},
            "block_out_channels must be at least 12 each for initialization='wavelet', 4 for each colour, got (128, 8,",
        ),
        ({"block_out_channels": (32, 32, 32, 4)}, "block_out_channels must be at least 6 each"),
        ({"extraction_channels": 8}, "extraction_channels must be at least 12 for initialization='wavelet'"),
        ({"extraction": "nafnet", "nafnet_width": 8}, "nafnet_width must be at least 12 for initialization='wavelet'"),
        ({"aggregation_channels": 8, "latent_channels": 9}, "aggregation_channels must be at least 9 for"),
        ({"decoder_outer_norm": True, "block_out_channels": (97,) * 4}, "decoder_outer_norm must be False for"),
        ({"aggregation": "vit", "vit_width": 8}, "vit_width must be at least 32 for initialization='wavelet'"),
    ],
)
def test_models_that_cannot_start_so_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        untrained(overrides)
    assert "initialize with 'residual'" in str(error.value)
