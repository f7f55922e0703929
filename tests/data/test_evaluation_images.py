"""Is every image of an evaluation seen once, whoever reads it and wherever it lies?"""

from __future__ import annotations

import functools
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litevae.data import DataError, EvaluationImages, open_images, protocol

VIEW = functools.partial(protocol("lanczos").view, size=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images, each of one gray level of its own, and one file that is none."""
    for index in range(7):
        Image.new("RGB", (20, 24), (index, index, index)).save(tmp_path / f"{index}.png")
    (tmp_path / "3x.png").write_bytes(b"not an image")
    return tmp_path


def levels(images: EvaluationImages, *share: int) -> dict[int, int]:
    """Index -> gray level."""
    found: dict[int, int] = {}
    for batch in images.batches(VIEW, 2, *share):
        assert len(batch.indices) == len(batch.names) == len(batch.pixels)
        for index, pixels in zip(batch.indices, batch.pixels, strict=True):
            assert index not in found
            found[index] = int(pixels.unique())
    return found


IN_NAME_ORDER = {0: 0, 1: 1, 2: 2, 3: 3, 5: 4, 6: 5, 7: 6}  # index 4 cannot be read


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:skipped .unreadable")
def test_processes_see_each_image_once(folder: Path, workers: int):
    images = open_images(str(folder), workers=workers)
    assert len(images) == 8
    assert images.description == "8 images"
    whole = levels(images)
    assert sorted(whole.values()) == list(range(7))
    assert images.skipped.by_kind() == {"unreadable": 1}
    shares = [levels(images, rank, 3) for rank in range(3)]
    assert sum(map(len, shares)) == len(whole)
    assert {index: level for share in shares for index, level in share.items()} == whole


@pytest.mark.filterwarnings("ignore:skipped .unreadable")
def test_a_pass_goes_on_where_it_stopped(folder: Path):
    images = open_images(str(folder), workers=0)
    whole = levels(images)
    assert levels(images, 0, 1, 2) == {index: level for index, level in whole.items() if index >= 4}
    assert levels(images, 1, 2, 1) == {index: level for index, level in whole.items() if index >= 6}


def test_a_limit_is_spread_over_the_names(folder: Path):
    (folder / "3x.png").unlink()
    for index in range(7, 40):
        Image.new("RGB", (20, 24), (index, index, index)).save(folder / f"{index:02d}.png")
    found = levels(open_images(str(folder), limit=10, workers=0))
    assert sorted(found) == list(range(10))
    assert max(found.values()) > 20
    assert found == dict(itertools.islice(levels(open_images(str(folder), workers=0)).items(), 10))
    assert found == levels(open_images(str(folder), limit=10, workers=0))


def archive(folder: Path, path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for file in sorted(folder.glob("*.png")):
            tar.add(file, file.name)
    return path


@pytest.mark.filterwarnings("ignore:skipped .unreadable")
def test_shards_hold_the_same_images(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("shards")
    archive(folder, place / "a.tar")
    for name in (str(place), str(place / "a.tar"), str(place / "*.tar")):
        assert sorted(levels(open_images(name, workers=0)).values()) == list(range(7))


def test_images_win_over_what_lies_beside_them(folder: Path):
    (folder / "3x.png").unlink()
    archive(folder, folder / "backup.tar")
    (folder / "labels.parquet").write_bytes(b"")
    assert open_images(str(folder)).description == "7 images"


@pytest.mark.filterwarnings("ignore:skipped .unreadable")
def test_a_stream_is_read_from_its_front(folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    shard = archive(folder, tmp_path_factory.mktemp("shards") / "a.tar.gz", "w:gz")
    images = open_images(str(shard))
    assert len(images) == 0
    assert levels(images) == IN_NAME_ORDER
    assert levels(images, 1, 2) == {2: 2, 3: 3, 6: 5, 7: 6}
    assert levels(images, 0, 1, 2) == {index: level for index, level in IN_NAME_ORDER.items() if index >= 4}
    assert levels(open_images(str(shard), limit=3)) == {0: 0, 1: 1, 2: 2}
    assert {index: np.asarray(image).max() for index, image in images.read([5, 0])} == {0: 0, 5: 4}


def test_a_saved_dataset_is_found(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    import datasets

    place = tmp_path_factory.mktemp("saved")
    rows = {"image": [str(folder / f"{index}.png") for index in range(7)]}
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    datasets.DatasetDict({"validation": dataset}).save_to_disk(place)
    assert sorted(levels(open_images(str(place), workers=0)).values()) == list(range(7))
    with pytest.raises(DataError, match="must have the split test, got validation"):
        open_images(str(place), split="test")


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "DATA must name a folder of images, got nowhere, which does not exist"), ("empty", "it is empty")],
)
def test_places_without_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_images(name)
