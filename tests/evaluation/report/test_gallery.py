"""Are the right images chosen, and do the saved pictures show them?"""

import math
import statistics
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from litevae.evaluation.figures import latent_to_rgb
from litevae.evaluation.report import choose_gallery, save_gallery_images
from litevae.evaluation.report.gallery import ERROR_SCALE, error_map


def ranks(scores: dict[int, dict[str, float]], each: int = 2) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for chosen in choose_gallery(scores, each):
        found.setdefault(chosen.rank, []).append(chosen.index)
    return found


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("count", range(1, 16))
def test_worst_median_and_best_by_psnr(count: int, each: int) -> None:
    values = np.random.default_rng(count).permutation(count) * 1.5
    found = ranks({10 + index: {"psnr": float(value)} for index, value in enumerate(values)}, each)
    shown = [index for part in found.values() for index in part]
    assert len(shown) == len(set(shown)) == min(count, 3 * each)
    order = sorted(range(10, 10 + count), key=lambda index: values[index - 10])
    worst, best = found.get("worst", []), found.get("best", [])
    assert len(worst) == len(best)
    assert worst == order[: len(worst)]
    assert best == order[::-1][: len(best)]
    middle = [float(values[index - 10]) for index in found.get("median", [])]
    if count % 2 and len(middle) % 2:
        assert statistics.median(middle) == statistics.median(values)
    if count >= 3 * each:
        assert len(worst) == len(middle) == each


def test_lpips_comes_first_and_lower_is_better() -> None:
    scores = {index: {"psnr": float(index), "lpips-vgg": index / 10} for index in range(3)}
    assert ranks(scores) == {"worst": [2], "median": [1], "best": [0]}
    assert {chosen.by for chosen in choose_gallery(scores)} == {"lpips-vgg"}
    del scores[1]["lpips-vgg"]  # then PSNR, which all have
    assert ranks(scores) == {"worst": [0], "median": [1], "best": [2]}


def test_one_image_is_the_median_and_none_is_none() -> None:
    assert ranks({3: {"psnr": 1.0}}) == {"median": [3]}
    assert choose_gallery({}) == []


def test_nan_is_worst_infinity_best_and_ties_go_by_index() -> None:
    scores = {0: math.inf, 1: math.nan, 2: 7.0, 3: 7.0, 4: 7.0}
    assert ranks({index: {"psnr": value} for index, value in scores.items()}) == {
        "worst": [1, 2],
        "median": [3],
        "best": [0, 4],
    }


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="each must be at least 1, got 0"):
        choose_gallery({0: {"psnr": 1.0}}, 0)
    with pytest.raises(ValueError, match=r"scores must have psnr or an lpips of every image, got \['ssim'\]"):
        choose_gallery({0: {"ssim": 1.0}})
    with pytest.raises(ValueError, match=r"reconstruction must have the original's shape \[3, 8, 8\], got a torch"):
        save_gallery_images(Path("nowhere"), 0, 8, torch.zeros(3, 8, 8), torch.zeros(3, 8, 9), None)


def test_error_has_one_scale_for_all_images() -> None:
    original = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reconstruction = (original * torch.linspace(1, -1, 7)).flip(0)
    picture = error_map(original, reconstruction)
    # In float64: |difference| / 2 is the part of the range [-1, 1]; 0.25 of it is the last of 256 colours.
    error = np.abs(reconstruction.double().numpy() - original.double().numpy()).mean(0) / 2
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, 256), bytes=True)[:, :3]
    shown = np.asarray(picture.convert("RGB"))
    levels = np.argmin(np.abs(shown[:, :, None, :].astype(int) - colours.astype(int)).sum(-1), axis=-1)
    np.testing.assert_array_equal(colours[levels], shown)  # its own colours, exactly
    assert np.abs(levels - np.clip(error / 0.25, 0, 1) * 255).max() <= 0.5 + 1e-4  # rounded once; float32's error
    assert (error > ERROR_SCALE).any()
    assert (levels[error > ERROR_SCALE] == 255).all()


def test_pictures_are_saved_under_their_names(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    original, reconstruction = torch.rand(2, 3, 16, 24, generator=generator) * 2 - 1
    latent = torch.randn(4, 2, 3, generator=generator)
    paths = save_gallery_images(tmp_path, 7, 256, original, reconstruction, latent)
    assert paths == {kind: f"images/256-7-{kind}.png" for kind in ("original", "reconstruction", "error", "latent")}
    expected = {"original": original, "reconstruction": reconstruction, "latent": latent_to_rgb(latent)}
    for kind, tensor in expected.items():
        pixels = np.asarray(Image.open(tmp_path / str(paths[kind])))
        wanted = (tensor.double().numpy().transpose(1, 2, 0) + 1) * 127.5
        assert np.abs(pixels - wanted).max() <= 0.5 + 1e-4  # rounded once; float32's error
    error = Image.open(tmp_path / str(paths["error"]))
    assert error.convert("RGB").tobytes() == error_map(original, reconstruction).convert("RGB").tobytes()


def test_a_baseline_has_no_latent(tmp_path: Path) -> None:
    paths = save_gallery_images(tmp_path, 0, 8, torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), None)
    assert paths["latent"] is None
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "8-0-error.png",
        "8-0-original.png",
        "8-0-reconstruction.png",
    ]
