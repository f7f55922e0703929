"""Is the part of an image that is shown inside it, at the scale that was asked for, and is it cheap to cut?"""

import numpy as np
import pytest
import torch
from PIL import Image

from litevae.data.config import DataConfig
from litevae.data.crops import evaluation_view, random_crop, resized_size
from litevae.data.images import to_tensor

# Every pixel says where it is: red the row, green the column.
ROWS, COLUMNS = np.mgrid[0:60, 0:80]
PHOTO = Image.fromarray(np.stack([ROWS, COLUMNS, 0 * ROWS], axis=-1).astype(np.uint8))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 83, 3), dtype=np.uint8))


def pixels(crop: torch.Tensor) -> np.ndarray:
    return ((crop + 1) * 127.5).round().int().permute(1, 2, 0).numpy()


def test_crop_is_a_piece_of_its_photo_and_every_place_comes() -> None:
    rng, config = np.random.default_rng(0), DataConfig(crop_size=16, horizontal_flip=False)
    places = set()
    for _ in range(300):
        crop = np.asarray(random_crop(PHOTO, config, rng))
        top, left = crop[0, 0, :2]
        np.testing.assert_array_equal(crop[..., :2], np.asarray(PHOTO)[top : top + 16, left : left + 16, :2])
        places.add((int(top), int(left)))
    tops, lefts = zip(*places, strict=True)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 44, 0, 64)


def test_centre() -> None:
    config = DataConfig(crop_size=16, crop="center", horizontal_flip=False)
    crop = np.asarray(random_crop(PHOTO, config, np.random.default_rng(0)))
    np.testing.assert_array_equal(crop, np.asarray(PHOTO)[22:38, 32:48])


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


@pytest.mark.parametrize(("resize", "size"), [(24, (33, 24)), (40, (55, 40)), (96, (133, 96))])
def test_resize_then_crop(resize: int, size: tuple[int, int]) -> None:
    """The same pixels as Pillow's resize of the whole image and a crop of that, though it is never made."""
    assert resized_size(NOISE.size, resize) == size
    whole = np.asarray(NOISE.resize(size, Image.Resampling.LANCZOS)).astype(int)
    rng, config = np.random.default_rng(0), DataConfig(crop_size=24, resize=resize, horizontal_flip=False)
    for _ in range(20):
        state = rng.bit_generator.state
        crop = np.asarray(random_crop(NOISE, config, rng)).astype(int)
        again = np.random.default_rng()
        again.bit_generator.state = state
        again.uniform(0.0, 0.0)
        left, top = int(again.integers(size[0] - 24 + 1)), int(again.integers(size[1] - 24 + 1))
        assert np.abs(crop - whole[top : top + 24, left : left + 24]).max() <= 1


def test_max_downscale_counts_in_resized_pixels() -> None:
    config = DataConfig(crop_size=16, resize=30, max_downscale=64.0, crop="center", horizontal_flip=False)
    largest = max(
        int(np.ptp(np.asarray(random_crop(PHOTO, config, np.random.default_rng(seed)))[..., 0])) for seed in range(30)
    )
    assert largest > 55  # the whole height of 60 rows


def test_small_photo_is_upscaled() -> None:
    small = Image.new("RGB", (10, 12), (50, 100, 150))
    for config in (DataConfig(crop_size=32), DataConfig(crop_size=32, resize=40)):
        crop = random_crop(small, config, np.random.default_rng(0))
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
    assert evaluation_view(Image.new("RGB", (5, 9)), None).shape == (3, 16, 16)
    whole = np.asarray(NOISE.resize((44, 32), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels(evaluation_view(NOISE, 32)) - whole[:, 6:38]).max() <= 1


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_strip_is_not_blown_up(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Resized to a short side of 256 it would have 4 thousand million pixels."""
    made = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *a, **k: made.append(to) or resize(self, to, *a, **k))
    strip = Image.new("RGB", size, (9, 9, 9))
    assert (evaluation_view(strip, 256) == 9 / 127.5 - 1).all()
    random_crop(strip, DataConfig(crop_size=64, resize=128), np.random.default_rng(0))
    assert made == [(256, 256), (64, 64)]
