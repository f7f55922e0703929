"""Is sample n a function of (seed, n), and does an unusable image cost no more than itself?"""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litevae.data.config import DataConfig
from litevae.data.errors import DataError
from litevae.data.image_sources import FileSource
from litevae.data.training_samples import DeadLeavesSamples, ImageSamples, MixedSamples

CONFIG = DataConfig(crop_size=16, max_downscale=2.0)


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    """Five photos; blue is the number of the photo, red and green say where a pixel is."""
    rows, columns = np.mgrid[0:60, 0:80]
    for number in range(5):
        pixels = np.stack([rows, columns, 0 * rows + number], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return FileSource(sorted(tmp_path.glob("*.png")))


def shown(samples: ImageSamples, count: int) -> list[int]:
    return [int(samples.crop(n)[2, 0, 0]) for n in range(count)]


def test_a_pass_shows_every_photo_once_in_a_new_order(source: FileSource) -> None:
    photos = shown(ImageSamples(source, CONFIG, seed=0), 50)
    passes = [tuple(photos[start : start + 5]) for start in range(0, 50, 5)]
    assert all(sorted(order) == list(range(5)) for order in passes)
    assert len(set(passes)) > 1


def test_sample_depends_on_seed_and_number_alone(source: FileSource) -> None:
    samples = ImageSamples(source, CONFIG, seed=7)
    forwards = [samples.crop(n) for n in range(12)]
    assert (forwards[0].dtype, forwards[0].shape) == (torch.uint8, (3, 16, 16))
    backwards = pickle.loads(pickle.dumps(ImageSamples(source, CONFIG, seed=7)))  # as a spawned worker gets it
    for n in reversed(range(12)):
        assert torch.equal(backwards.crop(n), forwards[n])
    other = ImageSamples(source, CONFIG, seed=8)
    assert not any(torch.equal(other.crop(n), forwards[n]) for n in range(12))
    assert samples.position() is None


def test_unreadable_photo_is_replaced_by_the_next_of_the_pass(source: FileSource) -> None:
    whole = shown(ImageSamples(source, CONFIG, seed=0), 25)
    Path(source.paths[3]).write_bytes(b"no picture")
    samples = ImageSamples(source, CONFIG, seed=0)
    damaged = shown(samples, 25)
    for start in range(0, 25, 5):
        order = whole[start : start + 5]
        following = order[(order.index(3) + 1) % 5]
        assert damaged[start : start + 5] == [following if photo == 3 else photo for photo in order]
    assert [skip[:2] for skip in samples.take_skips()] == [(source.paths[3], "unreadable")]
    assert samples.take_skips() == []
    shown(samples, 25)
    assert samples.take_skips() == []


def test_small_photo_is_refused_or_upscaled(source: FileSource) -> None:
    Image.new("RGB", (80, 15), (0, 0, 3)).save(source.paths[3])
    assert set(shown(ImageSamples(source, CONFIG, seed=0), 10)) == set(range(5))
    samples = ImageSamples(source, DataConfig(crop_size=16, small_images="refuse"), seed=0)
    assert set(shown(samples, 10)) == {0, 1, 2, 4}
    assert [skip.kind for skip in samples.take_skips()] == ["too small"]


def test_nothing_usable_is_an_error(source: FileSource) -> None:
    for path in source.paths:
        Path(path).write_bytes(b"")
    samples = ImageSamples(source, CONFIG, seed=0)
    with pytest.raises(DataError, match="none of the 5 training images can be used"):
        samples.crop(0)
    assert len(samples.take_skips()) == 5


def test_dead_leaves_never_repeat() -> None:
    samples = DeadLeavesSamples(DataConfig(source="dead_leaves", crop_size=32), seed=1)
    crops = [samples.crop(n) for n in range(6)]
    assert (crops[0].dtype, crops[0].shape) == (torch.uint8, (3, 32, 32))
    assert not any(torch.equal(crops[0], crop) for crop in crops[1:])
    assert torch.equal(DeadLeavesSamples(DataConfig(source="dead_leaves", crop_size=32), seed=1).crop(5), crops[5])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixture(source: FileSource, share: float) -> None:
    photos, leaves = ImageSamples(source, CONFIG, seed=0), DeadLeavesSamples(CONFIG, seed=0)
    mixed = MixedSamples(photos, leaves, share, seed=0)
    drawn = 0
    for n in range(200):
        crop = mixed.crop(n)
        is_leaves = bool(crop[2].max() > 4)
        assert torch.equal(crop, (leaves if is_leaves else photos).crop(n))
        drawn += is_leaves
    assert drawn == pytest.approx(200 * share, abs=25 if 0 < share < 1 else 0)


def test_skips_come_through_a_mixture(source: FileSource) -> None:
    Path(source.paths[2]).write_bytes(b"")
    mixed = MixedSamples(ImageSamples(source, CONFIG, seed=0), DeadLeavesSamples(CONFIG, seed=0), 0.5, seed=0)
    for n in range(30):
        mixed.crop(n)
    assert [skip.name for skip in mixed.take_skips()] == [source.paths[2]]
