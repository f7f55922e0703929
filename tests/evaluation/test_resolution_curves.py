"""Do the curves over resolutions show the numbers they are given, and only of models that were measured alike?"""

from pathlib import Path
from typing import Any

import matplotlib
import pytest
from PIL import Image

from litevae.data import srgb_profile
from litevae.evaluation.figures import STYLE
from litevae.evaluation.resolution_curves import _figure, curve, save_resolution_curves


def results(label: str, sizes: dict[str, dict[str, float]], **protocol: str) -> dict[str, Any]:
    return {
        "model": {"label": label},
        "data": {"name": "invented", "images": 50_000, "hash": "sha256:01"},
        "protocol": {"name": "ldm", **protocol},
        "sizes": {side: {"images": 50_000, "metrics": metrics} for side, metrics in sizes.items()},
    }


def drawn(models: list[dict[str, Any]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Panel -> model -> points."""
    with matplotlib.rc_context(STYLE):
        return {
            axes.get_title(loc="left"): {
                line.get_label(): [tuple(point) for point in line.get_xydata()] for line in axes.get_lines()
            }
            for axes in _figure(models).axes
        }


A = results("A", {"64": {"rfid": 9.0, "fwd": 4.0, "psnr": 22.0}, "256": {"rfid": 1.5, "fwd": 2.0, "psnr": 26.0}})
B = results("B", {"64": {"fwd": 5.0, "psnr": 21.0, "ssim": 0.5}, "256": {"fwd": 3.0, "psnr": 25.0, "ssim": 0.75}})


def test_points_are_the_measured_ones_by_ascending_side() -> None:
    assert curve(results("A", {"256": {"psnr": 26.0}, "64": {"psnr": 22.0}, "32": {}}), "psnr") == [
        (64, 22.0),
        (256, 26.0),
    ]
    panels = drawn([A])
    assert list(panels) == ["rFID ↓", "PSNR, dB ↑"]
    assert panels["rFID ↓"] == {"A": [(64.0, 9.0), (256.0, 1.5)]}


def test_fwd_stands_in_where_a_model_has_no_rfid() -> None:
    panels = drawn([A, B])
    assert list(panels) == ["FWD ↓", "PSNR, dB ↑", "SSIM ↑"]
    assert panels["FWD ↓"] == {"A": [(64.0, 4.0), (256.0, 2.0)], "B": [(64.0, 5.0), (256.0, 3.0)]}
    assert panels["SSIM ↑"] == {"B": [(64.0, 0.5), (256.0, 0.75)]}


def test_the_axis_is_of_doublings_and_names_the_sides() -> None:
    axes = _figure([A]).axes[0]
    assert axes.get_xscale() == "log"
    assert list(axes.get_xticks()) == [64, 256]
    assert axes.xaxis.get_major_formatter()(64) == "64"


def test_a_trunk_is_named_and_a_random_one_is_not_drawn() -> None:
    random = results("A", {side: {"lpips-vgg-random": 0.1} for side in ("64", "128")})
    vgg = results("A", {side: {"lpips-vgg": 0.1} for side in ("64", "128")})
    assert list(drawn([vgg])) == ["LPIPS (VGG) ↓"]
    with pytest.raises(ValueError, match="results must have a metric at two sides or more"):
        _figure([random])


def test_a_picture_is_written(tmp_path: Path) -> None:
    save_resolution_curves(tmp_path / "curves.png", [A, B])
    picture = Image.open(tmp_path / "curves.png")
    assert picture.width > picture.height > 300
    assert picture.info["icc_profile"] == srgb_profile()


def test_models_that_were_not_measured_alike_are_refused(tmp_path: Path) -> None:
    sampled = results("C", {"64": {"psnr": 20.0}, "256": {"psnr": 22.0}}, latent="sample")
    with pytest.raises(ValueError, match=r"protocol.latent must be the same .* 'nothing' of A and 'sample' of C"):
        save_resolution_curves(tmp_path / "x.png", [A, sampled])
    others = {**B, "data": {**B["data"], "hash": "sha256:02"}}
    with pytest.raises(ValueError, match=r"data.hash must be the same .* 'sha256:01' of A and 'sha256:02' of B"):
        save_resolution_curves(tmp_path / "x.png", [A, others])
    with pytest.raises(ValueError, match=r"results must be of 1 to 6 models, got 0"):
        save_resolution_curves(tmp_path / "x.png", [])
    with pytest.raises(ValueError, match=r"results must have a metric at two sides or more, got \['64'\]"):
        save_resolution_curves(tmp_path / "x.png", [results("A", {"64": {"psnr": 20.0}})])
    assert list(tmp_path.iterdir()) == []
