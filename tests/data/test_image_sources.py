"""Are the right files found, in the right order, and is what is wrong with a folder said?"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litevae.data.errors import DataError
from litevae.data.image_sources import (
    BUILT_IN_HELD_OUT,
    BUILT_IN_TRAINING,
    FileSource,
    PackedStrings,
    SourceSubset,
    built_in_paths,
    find_images,
)

Fill = Callable[[Path, int], list[Path]]


def test_built_in_photographs_are_real_and_disjoint() -> None:
    assert not set(BUILT_IN_TRAINING) & set(BUILT_IN_HELD_OUT)
    source = FileSource(built_in_paths(BUILT_IN_TRAINING))
    sizes = {source.title(index): source.read(index).size for index in range(len(source))}
    assert list(sizes) == list(BUILT_IN_TRAINING)
    assert sizes["astronaut.png"] == (512, 512)
    assert sizes["motorcycle_left.png"] == (741, 500)


def test_nested_folders_in_name_order_without_hidden_files(tmp_path: Path, fill: Fill) -> None:
    paths = fill(tmp_path / "a", 2) + fill(tmp_path / "a-b", 1) + fill(tmp_path / "b" / "c", 2)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "program.eps").write_text("%!PS")
    (tmp_path / "b" / "c" / "photo-001.png").rename(tmp_path / "b" / "c" / "photo-001.JPeG")
    fill(tmp_path / ".thumbnails", 3)
    (tmp_path / "a" / "._photo-000.png").write_bytes(b"\0")
    found = find_images(str(tmp_path), "data.path")
    assert found == [*map(str, paths[:-1]), str(paths[-1].with_suffix(".JPeG"))]


def test_linked_folders_are_entered_once(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path / "photos", 2)
    fill(tmp_path / "elsewhere", 1)
    (tmp_path / "photos" / "circle").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "other").symlink_to(tmp_path / "elsewhere")
    found = find_images(str(tmp_path / "photos"), "data.path")
    assert [os.path.relpath(path, tmp_path / "photos") for path in found] == [
        "other/photo-000.png",
        "photo-000.png",
        "photo-001.png",
    ]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Fill) -> None:
    fill(tmp_path / "photos", 2)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(find_images("~/photos", "data.path")) == 2


def test_wrong_folders(tmp_path: Path, fill: Fill) -> None:
    (tmp_path / "empty").mkdir()
    one = fill(tmp_path / "one", 1)[0]
    for name in ("a.txt", "b.tar", "c.parquet"):
        (tmp_path / name[0]).mkdir()
        (tmp_path / name[0] / name).write_text("a")
    messages = {
        str(tmp_path / "nowhere"): "data.path must name a folder of images, got .*nowhere, which does not exist$",
        str(tmp_path / "empty"): r"which holds none \(it is empty\)",
        str(tmp_path / "a"): r"which holds none \(its 1 files have other endings\)$",
        str(tmp_path / "b"): "tar shards are read with data.source=webdataset",
        str(tmp_path / "c"): "a dataset is read with data.source=dataset",
        str(one): "got the file .*photo-000.png; its folder is",
        str(tmp_path / "b" / "b.tar"): "tar shards are read with data.source=webdataset",
        "somebody/photos": "a dataset on the hub is read with data.source=dataset",
    }
    for path, message in messages.items():
        with pytest.raises(DataError, match=message):
            find_images(path, "data.path")


def test_missing_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"lacks zebra\.png; set data\.path to a folder"):
        built_in_paths(["astronaut.png", "zebra.png"])


def test_files_of_one_name_in_two_folders_stay_two(tmp_path: Path, fill: Fill) -> None:
    source = FileSource(fill(tmp_path / "cat", 1) + fill(tmp_path / "dog", 1))
    assert [source.title(index) for index in range(2)] == ["cat/photo-000.png", "dog/photo-000.png"]
    assert source.name(1) == str(tmp_path / "dog" / "photo-000.png")


def test_decoded_once_if_kept(tmp_path: Path, fill: Fill) -> None:
    paths = fill(tmp_path, 2)
    kept, fresh = FileSource(paths, keep_decoded=True), FileSource(paths)
    first = kept.read(1)
    Image.new("RGB", (8, 8), "red").save(paths[1])
    assert kept.read(1) is first
    assert fresh.read(1).getpixel((0, 0)) == (255, 0, 0)


def test_part_of_a_source(tmp_path: Path, fill: Fill) -> None:
    whole = FileSource(fill(tmp_path / "a", 6), str(tmp_path))
    part = SourceSubset(whole, np.array([4, 2, 3]))
    assert len(part) == 3
    assert [part.title(index) for index in range(3)] == ["photo-004.png", "photo-002.png", "photo-003.png"]
    assert [part.name(index) for index in range(3)] == [whole.name(index) for index in (4, 2, 3)]
    assert list(part.identities()) == ["a/photo-004.png", "a/photo-002.png", "a/photo-003.png"]
    assert [part.read(index).getpixel((0, 0)) for index in range(3)] == [(4, 4, 4), (2, 2, 2), (3, 3, 3)]


def test_identity_is_the_path_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Fill) -> None:
    """However the folder is given."""
    fill(tmp_path / "photos" / "cat", 1)
    fill(tmp_path / "photos" / "dog", 2)
    monkeypatch.chdir(tmp_path / "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (".", "./", "../photos", str(tmp_path / "photos"), f"{tmp_path}/photos/", "~/photos"):
        source = FileSource(find_images(folder, "data.path"), folder)
        assert list(source.identities()) == ["cat/photo-000.png", "dog/photo-000.png", "dog/photo-001.png"], folder


def test_names_are_kept_as_they_are() -> None:
    names = ["", "a/b.png", "Zürich 東京.png", os.fsdecode(b"latin-\xfc.png"), ""]
    packed = PackedStrings(names)
    assert list(packed) == names
    assert [packed[index] for index in range(5)] == names
    assert list(PackedStrings([])) == []


def test_a_title_of_a_name_that_is_not_utf8_can_be_shown(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"q\xfe.png")
    try:
        Image.new("RGB", (4, 4)).save(os.fsdecode(path))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (found,) = find_images(str(tmp_path), "data.path")
    source = FileSource([found])
    assert source.title(0) == "q\\udcfe.png"
    assert source.read(0).size == (4, 4)
