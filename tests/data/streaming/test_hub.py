"""Are Hugging Face datasets read like files, offline, with every way in which they can be wrong named?"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litevae.data.config import DataConfig
from litevae.data.errors import DataError, UnreadableImageError
from litevae.data.streaming import hub

Parquet = Callable[..., str]
Png = Callable[..., bytes]


def config(path: str, tmp_path: Path, **changes: Any) -> DataConfig:
    return DataConfig(**{"source": "dataset", "path": path, "cache_dir": str(tmp_path / "own"), **changes})


def test_rows_in_any_order(tmp_path: Path, parquet: Parquet, png: Png) -> None:
    folder = parquet([[png(0), png(1)], [png(2)]])
    rows = hub.open_rows(config(folder, tmp_path), "train")
    assert rows.column == "image"
    assert [rows.read(index).getpixel((0, 0))[0] for index in (2, 0, 1)] == [2, 0, 1]
    assert rows.name(2) == "row 2"


def test_column_of_bytes(tmp_path: Path, parquet: Parquet, png: Png) -> None:
    rows = hub.open_rows(config(parquet([[png(7)]]), tmp_path, image_column="raw"), "train")
    assert rows.read(0).getpixel((0, 0)) == (7, 7, 7)


def test_identity_is_the_path_unless_it_is_of_this_machine(tmp_path: Path, png: Png) -> None:
    from datasets import Dataset, Features, Image

    paths = ["a/1.png", None, f"{tmp_path}/photos/b/2.png", "/home/me/3.png", "", "https://example.org/4.png"]
    cells = [{"bytes": png(0), "path": path} for path in paths]
    rows = Dataset.from_dict({"image": [*cells, None]}, features=Features({"image": Image(decode=False)}))
    expected = ["a/1.png", "row 1", "b/2.png", "row 3", "row 4", "https://example.org/4.png", "row 6"]
    assert list(hub.DatasetSource(rows, "image", f"{tmp_path}/photos").identities()) == expected
    expected[2] = "row 2"
    assert list(hub.DatasetSource(rows, "image").identities()) == expected
    bytes_alone = Dataset.from_dict({"raw": [png(0), png(1)]})
    assert list(hub.DatasetSource(bytes_alone, "raw").identities()) == ["row 0", "row 1"]


def test_rows_that_cannot_be_read(tmp_path: Path, parquet: Parquet, png: Png) -> None:
    rows = hub.open_rows(config(parquet([[None, b"", b"text", png(3)[:45]]]), tmp_path), "train")
    reasons = []
    for index in range(4):
        with pytest.raises(UnreadableImageError, match=f"cannot read the image row {index}") as error:
            rows.read(index)
        reasons.append(error.value.reason)
    assert reasons[:3] == ["there is no image", "the file is empty", "not an image in a format that Pillow reads"]
    assert "truncated" in reasons[3]


def test_saved_to_disk_with_and_without_splits(tmp_path: Path, png: Png) -> None:
    from datasets import Dataset, DatasetDict, Features, Image

    data = Dataset.from_dict({"photo": [{"bytes": png(5), "path": None}]}, features=Features({"photo": Image()}))
    data.save_to_disk(tmp_path / "one")
    DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "two")
    for name, split in (("one", "train"), ("two", "test")):
        rows = hub.open_rows(config(str(tmp_path / name), tmp_path), split)
        assert rows.read(0).getpixel((0, 0)) == (5, 5, 5)
    with pytest.raises(DataError, match="must have the split val, got train, test"):
        hub.open_rows(config(str(tmp_path / "two"), tmp_path), "val")
    with pytest.raises(DataError, match=r"needs no streaming: set data\.streaming=false"):
        hub.open_row_stream(config(str(tmp_path / "one"), tmp_path), "train")


def test_image_folder_with_paths_instead_of_bytes(tmp_path: Path, fill: Callable[..., list[Path]]) -> None:
    paths = fill(tmp_path / "photos", 3)
    paths[1].write_bytes(b"no picture")
    rows = hub.open_rows(config(str(tmp_path / "photos"), tmp_path), "train")
    assert rows.read(2).getpixel((0, 0)) == (2, 2, 2)
    with pytest.raises(UnreadableImageError, match=r"row 1 \(.*photo-001\.png\): not an image"):
        rows.read(1)
    paths[2].unlink()
    with pytest.raises(UnreadableImageError, match=r"no such file"):
        rows.read(2)


def test_remote_path_is_fetched(monkeypatch: pytest.MonkeyPatch, png: Png) -> None:
    import fsspec

    with fsspec.open("memory://photos/a.png", "wb") as file:
        file.write(png(4))
    found = hub.from_cell({"bytes": None, "path": "memory://photos/a.png"}, "row 0")
    assert found.decode().getpixel((0, 0)) == (4, 4, 4)
    lost = hub.from_cell({"bytes": None, "path": "memory://photos/b.png"}, "row 1")
    with pytest.raises(UnreadableImageError, match="row 1"):
        lost.decode()


def test_what_cannot_be_loaded(tmp_path: Path, parquet: Parquet, png: Png) -> None:
    folder = parquet([[png(0)]])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1 not parquet")
    cases = [
        ({"path": "nobody/nothing"}, "train", "cannot be loaded as a dataset .*network"),
        ({"path": str(tmp_path / "broken")}, "train", "cannot be loaded as a dataset"),
        ({"path": folder}, "test", "cannot be loaded as a dataset .split test.: (Unknown|Bad) split"),
        (
            {"path": folder, "image_column": "photo"},
            "train",
            "image_column must be one of label, image, raw, got photo",
        ),
        ({"path": folder, "image_column": "label"}, "train", "image_column must hold images or bytes, got label"),
    ]
    for changes, split, message in cases:
        for open_it in (hub.open_rows, hub.open_row_stream):
            with pytest.raises(DataError, match=message) as error:
                open_it(config(tmp_path=tmp_path, **changes), split)
            assert "\n" not in str(error.value)


def test_dataset_without_images(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.csv").write_text("text,label\na,1\n")
    with pytest.raises(DataError, match="must have a column of images, got text, label"):
        hub.open_rows(config(str(tmp_path / "texts"), tmp_path), "train")
    with pytest.raises(DataError, match=r"must say the types of its columns|must have a column of images"):
        hub.open_row_stream(config(str(tmp_path / "texts"), tmp_path), "train")


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"need the datasets library: pip install 'litevae\[train\]'"):
        hub.import_datasets()


def test_writes_only_where_it_may(tmp_path: Path, own_cache: Path, parquet: Parquet, png: Png) -> None:
    """A stream writes nothing, but for the library's empty lock files; the rest goes to data.cache_dir."""
    folder = parquet([[png(0)], [png(1)]])
    hub.open_row_stream(config(folder, tmp_path), "train")
    hub.open_shard_stream([str(tmp_path / "x.tar")], None)
    assert not list((tmp_path / "own").rglob("*.arrow"))
    hub.open_rows(config(folder, tmp_path), "train")
    assert list((tmp_path / "own").rglob("*.arrow"))
    assert {path.suffix for path in own_cache.rglob("*")} <= {".lock"}


def test_no_progress_bars_where_nobody_watches(
    tmp_path: Path, parquet: Parquet, png: Png, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    folder = parquet([[png(0)]])
    capfd.readouterr()
    hub.open_rows(config(folder, tmp_path), "train")
    assert capfd.readouterr().err == ""
    assert not datasets.are_progress_bars_disabled()
