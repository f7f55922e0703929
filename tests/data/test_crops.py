"""Is every crop a pure function of (seed, n), cut inside its photo, at the scale that was asked for?"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litevae.data.config import DataConfig
from litevae.data.crops import CropStream, crop_batches, derive_seed, evaluation_view, random_crop
from litevae.data.images import to_tensor
from litevae.data.sources import PhotoSource

# Every pixel says where it is: red the row, green the column.
ROWS, COLUMNS = np.mgrid[0:60, 0:80]
PHOTO = Image.fromarray(np.stack([ROWS, COLUMNS, 0 * ROWS], axis=-1).astype(np.uint8))


@pytest.fixture
def source(tmp_path: Path) -> PhotoSource:
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.asarray(PHOTO) + np.array([0, 0, number], dtype=np.uint8)).save(paths[-1])
    return PhotoSource(paths)


def pixels(crop: torch.Tensor) -> np.ndarray:
    return ((crop + 1) * 127.5).round().int().permute(1, 2, 0).numpy()


def test_crop_is_a_piece_of_its_photo(source: PhotoSource) -> None:
    stream = CropStream(source, DataConfig(crop_size=16), seed=0)
    for n in range(20):
        crop = pixels(stream[n])
        crop = crop[:, ::-1] if crop[0, 0, 1] > crop[0, -1, 1] else crop
        top, left = crop[0, 0, :2]
        np.testing.assert_array_equal(crop[..., :2], np.asarray(PHOTO)[top : top + 16, left : left + 16, :2])


def test_a_pass_shows_every_photo_once_in_a_new_order(source: PhotoSource) -> None:
    stream = CropStream(source, DataConfig(crop_size=16), seed=0)
    shown = [int(pixels(stream[n])[0, 0, 2]) for n in range(50)]
    passes = [tuple(shown[start : start + 5]) for start in range(0, 50, 5)]
    assert all(sorted(order) == list(range(5)) for order in passes)
    assert len(set(passes)) > 1


def test_sample_depends_on_seed_and_number_alone(source: PhotoSource) -> None:
    config = DataConfig(crop_size=16, max_downscale=2.0)
    forwards = [CropStream(source, config, seed=7)[n] for n in range(12)]
    backwards = CropStream(source, config, seed=7)
    for n in reversed(range(12)):
        assert torch.equal(backwards[n], forwards[n])
    other = CropStream(source, config, seed=8)
    assert not any(torch.equal(other[n], forwards[n]) for n in range(12))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_a_step_on_equal_the_unbroken_ones(source: PhotoSource, workers: int) -> None:
    stream = CropStream(source, DataConfig(crop_size=16), seed=0)
    options = {"last_step": 5, "batch_size": 3, "pin_memory": False}
    unbroken = list(crop_batches(stream, first_step=0, workers=0, **options))
    resumed = list(crop_batches(stream, first_step=2, workers=workers, **options))
    assert len(resumed) == 3
    for before, after in zip(unbroken[2:], resumed, strict=True):
        assert torch.equal(before, after)


def test_scale_is_drawn_from_one_to_max_downscale() -> None:
    rng = np.random.default_rng(0)
    config = DataConfig(crop_size=16, max_downscale=3.0, horizontal_flip=False)
    shown = []
    for _ in range(300):
        crop = np.asarray(random_crop(PHOTO, config, rng)).astype(int)
        shown.append(16 * (crop[8, 12, 1] - crop[8, 4, 1]) / 8)  # photo columns that the crop's 16 pixels cover
    assert min(shown) == 16
    assert 44 <= max(shown) <= 50
    assert np.exp(np.mean(np.log(np.maximum(shown, 1)))) == pytest.approx(16 * 3**0.5, rel=0.05)


def test_small_photo_is_upscaled() -> None:
    small = Image.new("RGB", (10, 12), (50, 100, 150))
    crop = random_crop(small, DataConfig(crop_size=32), np.random.default_rng(0))
    assert crop.size == (32, 32)
    assert (np.asarray(crop) == (50, 100, 150)).all()


def test_flip() -> None:
    rng = np.random.default_rng(0)
    crops = [np.asarray(random_crop(PHOTO, DataConfig(crop_size=16), rng)).astype(int) for _ in range(200)]
    flipped = sum(crop[0, 0, 1] > crop[0, -1, 1] for crop in crops)
    assert 70 < flipped < 130
    never = DataConfig(crop_size=16, horizontal_flip=False)
    crops = [np.asarray(random_crop(PHOTO, never, rng)).astype(int) for _ in range(20)]
    assert not any(crop[0, 0, 1] > crop[0, -1, 1] for crop in crops)


def test_evaluation_view() -> None:
    assert torch.equal(evaluation_view(PHOTO, None), to_tensor(PHOTO))
    centre = pixels(evaluation_view(PHOTO, 60))
    np.testing.assert_array_equal(centre, np.asarray(PHOTO)[:, 10:70])
    assert evaluation_view(PHOTO, 32).shape == (3, 32, 32)
    assert evaluation_view(Image.new("RGB", (5, 9)), None).shape == (3, 16, 16)


def test_derived_seeds_are_fixed_and_distinct() -> None:
    # A changed derivation would change every run, and break the resuming of older ones.
    assert derive_seed(0, "crop", 0) == 3390204253855563014
    seeds = {derive_seed(*key) for key in [(0, "crop", 0), (0, "crop", 1), (0, "noise", 0), (1, "crop", 0)]}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_size": 100}, "data.crop_size must be a multiple of 8 and at least 8, got 100"),
        ({"holdout": 0.0}, "data.holdout must be greater than 0 and less than 1, got 0.0"),
        ({"max_downscale": 0.5}, "data.max_downscale must be from 1 to 64, got 0.5"),
        ({"evaluation_size": 8}, "data.evaluation_size must be at least 16 or null, got 8"),
        ({"evaluation_images": 0}, "data.evaluation_images must be at least 1, got 0"),
        ({"workers": -1}, "data.workers must be at least 0 or null, got -1"),
    ],
)
def test_wrong_config(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:
        DataConfig(**change)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)
