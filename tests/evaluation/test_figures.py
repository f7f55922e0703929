"""Do the figures show the numbers they are given?"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litevae.data import srgb_profile
from litevae.evaluation.figures import (
    _curves,
    _reconstruction_grid,
    latent_to_rgb,
    save_curves,
    save_reconstruction_grid,
)
from litevae.evaluation.held_out import Evaluation, Measured
from litevae.evaluation.photo_panels import side_by_side


def test_latent_colours_are_stretched_channel_by_channel() -> None:
    ramp = torch.linspace(0, 1, 10_000).view(1, 100, 100)
    latent = torch.cat([ramp * 50 - 20, -ramp, ramp * 1e-3 + 7, 1e6 * ramp])
    rgb = latent_to_rgb(latent)
    assert rgb.shape == (3, 100, 100)
    # From the 1st to the 99th percentile: a ramp in [0, 1] becomes (ramp - 0.01) / 0.98, clamped, in [-1, 1].
    expected = ((ramp - 0.01) / 0.98).clamp(0, 1) * 2 - 1
    torch.testing.assert_close(rgb, torch.cat([expected, -expected, expected]), rtol=0, atol=2e-3)


def test_latent_with_one_channel_is_gray_and_a_constant_one_is_finite() -> None:
    rgb = latent_to_rgb(torch.randn(1, 6, 6))
    assert torch.equal(rgb[0], rgb[2])
    assert torch.isfinite(latent_to_rgb(torch.zeros(4, 6, 6))).all()


def test_panels_stand_side_by_side_pixel_by_pixel() -> None:
    original, reconstruction = torch.rand(2, 3, 200, 300).mul(2).sub(1).round(decimals=1)
    image = np.asarray(side_by_side(original, reconstruction, torch.randn(4, 25, 38), ["a", "b", "c"], 8))
    gap, top = 6, 24
    assert image.shape == (top + 200 + gap, 3 * 300 + 4 * gap, 3)
    for index, panel in enumerate((original, reconstruction)):
        left = gap + index * (300 + gap)
        shown = image[top : top + 200, left : left + 300].transpose(2, 0, 1)
        np.testing.assert_array_equal(shown, ((panel + 1) * 127.5).round().to(torch.uint8).numpy())


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_a_place_of_the_latent_is_as_wide_as_the_model_s_factor(factor: int) -> None:
    height, width = 200, 300
    image, latent = torch.zeros(3, height, width), torch.randn(4, -(-height // factor), -(-width // factor))
    picture = np.asarray(side_by_side(image, image, latent, ["a", "b", "c"], factor))
    shown = picture[24 : 24 + height, 18 + 2 * width : 18 + 3 * width]
    colours = ((latent_to_rgb(latent) + 1) * 127.5).round().to(torch.uint8).numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(shown, colours.repeat(factor, 0).repeat(factor, 1)[:height, :width])


def measured(name: str, height: int, width: int) -> Measured:
    image = torch.rand(3, height, width) * 2 - 1
    return Measured(name, image, image, torch.randn(4, height // 8, width // 8), 21.5, 0.5)


def test_grid_and_curves_are_written(tmp_path: Path) -> None:
    evaluation = Evaluation([measured("wide.png", 64, 96), measured("tall.png", 96, 64)])
    save_reconstruction_grid(tmp_path / "grid.png", evaluation, "title")
    width, height = Image.open(tmp_path / "grid.png").size
    assert 1500 < width < 1800
    assert height > 3 * 4 * 130 * (64 / 96 + 96 / 64) / 3  # both rows, each as high as its image wants
    save_curves(tmp_path / "curves.png", [{"kind": "evaluation", "step": 0, "psnr": 9.0}], 25.0)
    assert Image.open(tmp_path / "curves.png").width > 1000
    assert {Image.open(path).info["icc_profile"] for path in tmp_path.iterdir()} == {srgb_profile()}


def test_the_raw_weights_column_is_of_the_same_image() -> None:
    """An image may go away between the two evaluations."""
    named = {name: measured(f"{name}.png", 64, 64) for name in "abc"}
    averaged, raw = (Evaluation(named[name] for name in names) for names in ("abc", "bc"))
    heads = [text.get_text() for axes in _reconstruction_grid(averaged, "", 8, raw).axes for text in axes.texts]
    assert [head for head in heads if head in named] == ["b", "c"]


def test_curves_show_the_metrics() -> None:
    metrics = [
        {"kind": "evaluation", "step": 0, "psnr": 10.0},
        {"kind": "train", "step": 5, "loss": {"total": 0.5, "l1": 0.4}},
        {"kind": "resume", "step": 5},
        {"kind": "train", "step": 10, "loss": {"total": 0.3, "l1": 0.2}},
        {"kind": "evaluation", "step": 10, "psnr": 20.0},
    ]
    losses, quality = _curves(metrics, 25.0).axes
    assert [line.get_xydata().tolist() for line in losses.lines] == [[[5, 0.5], [10, 0.3]], [[5, 0.4], [10, 0.2]]]
    assert quality.lines[0].get_xydata().tolist() == [[0, 10], [10, 20]]
    labels = {text.get_text() for axes in (losses, quality) for text in axes.texts}
    assert labels == {"total 0.3", "l1 0.2", "LiteVAE 20.00", "bicubic 25.00"}


@pytest.mark.parametrize("side", [(1, 1), (8, 200)])
def test_tiny_and_narrow_photos_are_drawn(side: tuple[int, int]) -> None:
    image = torch.zeros(3, *side)
    latent = torch.randn(4, -(-side[0] // 8), -(-side[1] // 8))
    assert side_by_side(image, image, latent, ["original 1x1", "reconstruction 99.99 dB", "latent"], 8).width > 200
