"""Are the right files found, held out and skipped, and is what is wrong named?"""

from pathlib import Path

import pytest
from PIL import Image

from litevae.data.config import DataConfig
from litevae.data.sources import BUILT_IN_HELD_OUT, BUILT_IN_TRAINING, DataError, PhotoSource, find_images, open_sources


def fill(folder: Path, count: int) -> list[Path]:
    """Images of distinct gray values, so that a photo is known by its first pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (20, 16), (number, number, number)).save(path)
    return paths


def test_built_in_photographs_are_real_and_disjoint() -> None:
    source, held_out = open_sources(DataConfig())
    assert len(source) == len(BUILT_IN_TRAINING)
    assert [photo.name for photo in held_out] == ["chelsea.png", "coffee.png"]
    assert not set(BUILT_IN_TRAINING) & set(BUILT_IN_HELD_OUT)
    sizes = {source[index].name: source[index].image.size for index in range(len(source))}
    assert sizes["astronaut.png"] == (512, 512)
    assert sizes["motorcycle_left.png"] == (741, 500)


def test_last_share_of_a_nested_folder_is_held_out(tmp_path: Path) -> None:
    paths = fill(tmp_path / "a", 6) + fill(tmp_path / "b" / "c", 4)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    fill(tmp_path / ".thumbnails", 3)
    source, held_out = open_sources(DataConfig(path=str(tmp_path), holdout=0.2))
    assert list(source.paths) == paths[:8]
    assert [photo.image.getpixel((0, 0)) for photo in held_out] == [(2, 2, 2), (3, 3, 3)]


def test_at_least_one_image_is_held_out(tmp_path: Path) -> None:
    paths = fill(tmp_path, 3)
    source, held_out = open_sources(DataConfig(path=str(tmp_path), holdout=0.01))
    assert list(source.paths) == paths[:2]
    assert len(held_out) == 1


def test_validation_folder_inside_the_training_folder_is_not_trained_on(tmp_path: Path) -> None:
    training, validation = fill(tmp_path / "train", 2), fill(tmp_path / "held-out", 2)
    config = DataConfig(path=str(tmp_path), validation_path=str(tmp_path / "held-out"))
    source, held_out = open_sources(config)
    assert list(source.paths) == training
    assert [photo.name for photo in held_out] == [path.name for path in validation]


def test_held_out_images_beyond_the_limit_are_not_trained_on_either(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    source, held_out = open_sources(DataConfig(path=str(tmp_path), holdout=0.5, evaluation_images=2))
    assert (len(source), len(held_out)) == (5, 2)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "photos", 2)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_sources(DataConfig(path="~/photos"))[0]) == 1


def test_unreadable_photo_is_named_once_and_replaced_by_the_next(tmp_path: Path) -> None:
    paths = fill(tmp_path, 4)
    paths[1].write_bytes(b"no picture")
    source = PhotoSource(paths)
    with pytest.warns(UserWarning, match=r"skipped: cannot read the image .*photo-001\.png") as caught:
        names = [source[1].name, source[1].name, source[0].name]
    assert names == ["photo-002.png", "photo-002.png", "photo-000.png"]
    assert len(caught) == 1


@pytest.mark.filterwarnings("ignore:skipped")
def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for path in fill(tmp_path, 4)[:3]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 3 image files"):
        open_sources(DataConfig(path=str(tmp_path)))


def test_wrong_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("a")
    one = fill(tmp_path / "one", 1)[0]
    messages = {
        tmp_path / "nowhere": "which does not exist",
        tmp_path / "empty": r"which holds none \(it is empty\)",
        tmp_path / "text": r"which holds none \(its 1 files have other endings\)",
        one: "got the file .*photo-000.png; its folder is",
        tmp_path / "one": "must hold at least 2 images.*data.validation_path",
    }
    for path, message in messages.items():
        with pytest.raises(DataError, match=message):
            open_sources(DataConfig(path=str(path)))
    with pytest.raises(DataError, match=r"every image .* is also in data\.validation_path"):
        open_sources(DataConfig(path=str(tmp_path / "one"), validation_path=str(tmp_path / "one")))


def test_files_of_one_name_in_two_folders_stay_two(tmp_path: Path) -> None:
    for folder in ("cat", "dog"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / folder / "1.png")
    source = PhotoSource(find_images(str(tmp_path), "data.path"))
    assert [photo.name for photo in source.readable(2)] == ["cat/1.png", "dog/1.png"]
