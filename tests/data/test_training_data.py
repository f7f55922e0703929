"""Is each kind of source opened as the config says, and is what is held out never trained on?"""

import os
import sys
import tarfile
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from litevae.data import (
    DataConfig,
    DataError,
    HeldOutImage,
    TrainingData,
    image_sources,
    open_data,
    read_image,
    to_image,
)
from litevae.data.held_out import IN_MEMORY
from litevae.data.image_sources import FileSource
from litevae.data.training_samples import ImageSamples

Fill = Callable[[Path, int], list[Path]]
Grays = Callable[[Tensor], list[int]]


def opened(path: str | Path | None, **changes: Any) -> TrainingData:
    options = {"crop_size": 8, "evaluation_size": 16, "workers": 0, "path": None if path is None else str(path)}
    return open_data(DataConfig(**{**options, **changes}), seed=0)


def held_out(data: TrainingData) -> list[int]:
    return [int(pixels(item)[0, 0, 0]) for item in data.held_out]


def pixels(item: HeldOutImage) -> Tensor:
    """What a held-out image of 8 bits was made of: uint8 [3, H, W]."""
    return torch.from_numpy(np.array(to_image(item.image))).permute(2, 0, 1)


def trained_on(data: TrainingData, grays: Grays, steps: int = 30) -> set[int]:
    return {gray for batch in data.batches(0, steps, 4) for gray in grays(batch)}


def test_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # none of this needs the library
    data = opened(None, evaluation_size=None)
    assert data.description == "6 photographs"
    assert [item.name for item in data.held_out] == ["chelsea.png", "coffee.png"]
    assert next(iter(data.held_out)).image.shape == (3, 300, 451)
    mixed = opened(None, source="photographs+dead_leaves", dead_leaves_share=0.25)
    assert mixed.description == "6 photographs, and dead leaves for 25% of the samples"
    assert [item.name for item in mixed.held_out] == ["chelsea.png", "coffee.png"]


def test_dead_leaves_hold_out_others_of_their_kind() -> None:
    data = opened(None, source="dead_leaves", crop_size=32, evaluation_size=32, evaluation_images=3)
    assert data.description == "dead leaves without end"
    drawn = [pixels(item) for item in data.held_out]
    assert len({image.numpy().tobytes() for image in drawn}) == 3
    trained = next(iter(data.batches(0, 1, 64)))
    for image in drawn:
        assert image.shape == (3, 32, 32)
        assert not (trained == image).all(dim=(1, 2, 3)).any()
    other_seed = open_data(data.config, seed=1)
    assert all(
        torch.equal(item.image, mine.image) for item, mine in zip(other_seed.held_out, data.held_out, strict=True)
    )


@pytest.fixture
def classes(tmp_path: Path, png: Callable[..., bytes]) -> Path:
    """20 folders of 10 images each: those of folder c have the gray values 10 * c to 10 * c + 9."""
    for gray in range(200):
        path = tmp_path / "classes" / f"{gray // 10:02d}" / f"{gray}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(gray))
    return tmp_path / "classes"


def test_every_class_is_trained_on_and_many_are_held_out(classes: Path, tmp_path: Path, grays: Grays) -> None:
    data = opened(classes)
    found, trained = held_out(data), trained_on(data, grays, steps=50)
    assert len({gray // 10 for gray in found}) >= 8
    assert trained == set(range(200)) - set(found)
    assert {gray // 10 for gray in trained} == set(range(20))
    first_four = held_out(opened(classes, evaluation_images=4))
    assert first_four == found[:4]
    assert len({gray // 10 for gray in first_four}) >= 3
    # Elsewhere, without some of the images and with others, the same ones are held out.
    classes.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "00" / "new.png").write_bytes((tmp_path / "elsewhere" / "00" / "0.png").read_bytes())
    for gray in range(0, 200, 3):
        (tmp_path / "elsewhere" / f"{gray // 10:02d}" / f"{gray}.png").unlink()
    assert held_out(opened(tmp_path / "elsewhere")) == [gray for gray in found if gray % 3]


def test_validation_folders_and_splits_are_measured_all_over(classes: Path, tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path / "training", 3)
    options = {"validation_path": str(classes), "evaluation_images": 8}
    cases: list[dict[str, Any]] = [{"path": tmp_path / "training"}, {"path": None, "source": "photographs"}]
    for case in cases:
        found = held_out(opened(**case, **options))
        assert len({gray // 10 for gray in found}) >= 5
        assert held_out(opened(**case, **options, holdout_rule="last")) == list(range(8))


def test_last_share_of_a_folder_in_older_runs(tmp_path: Path, fill: Fill) -> None:
    """Sample n is what it was: of the first images in name order."""
    paths = fill(tmp_path / "a", 10)
    data = opened(tmp_path, holdout=0.2, holdout_rule="last")
    assert data.description == "8 images"
    assert held_out(data) == [8, 9]
    older = ImageSamples(FileSource(paths[:8]), data.config, seed=0)
    assert torch.equal(next(iter(data.batches(0, 1, 20))), torch.stack([older.crop(n) for n in range(20)]))


def test_at_least_one_image_is_held_out_and_one_trained_on(tmp_path: Path, fill: Fill, grays: Grays) -> None:
    fill(tmp_path, 2)
    for holdout in (0.01, 0.99):
        data = opened(tmp_path, holdout=holdout)
        (found,) = held_out(data)
        assert trained_on(data, grays) == {0, 1} - {found}


def test_held_out_images_beyond_the_limit_are_not_trained_on_either(tmp_path: Path, fill: Fill, grays: Grays) -> None:
    fill(tmp_path, 20)
    every = held_out(opened(tmp_path, holdout=0.5))
    data = opened(tmp_path, holdout=0.5, evaluation_images=2)
    assert len(every) > 4
    assert (held_out(data), trained_on(data, grays)) == (every[:2], set(range(20)) - set(every))


@pytest.mark.filterwarnings("ignore:skipped")
def test_another_image_is_held_out_where_none_can_be_used(tmp_path: Path, fill: Fill, grays: Grays) -> None:
    """One damaged file of 20 keeps nobody from training; neither do all but two."""
    paths = fill(tmp_path, 20)
    order = held_out(opened(tmp_path, holdout=1 - 1e-9, evaluation_images=20))
    assert len(order) == 19
    paths[order[0]].write_bytes(b"")
    with pytest.warns(UserWarning, match="held-out images can be used") as caught:
        data = opened(tmp_path, holdout=1e-9)
    assert (held_out(data), trained_on(data, grays)) == ([order[1]], set(range(20)) - set(order[:2]))
    assert data.skipped.by_kind() == {"unreadable": 1}
    first, second = (paths[gray].name for gray in order[:2])
    skipped, replaced = (str(warning.message) for warning in caught)
    assert skipped.startswith(f"skipped (unreadable) {tmp_path / first}")
    assert f"the first is {tmp_path / first}: {tmp_path / second} is held out instead" in replaced
    for gray in order[:18]:
        paths[gray].write_bytes(b"")
    with pytest.warns(UserWarning, match="is held out instead"):
        data = opened(tmp_path, holdout=1e-9)
    assert held_out(data) == [order[18]]
    assert len(trained_on(data, grays, steps=2)) == 1


def test_validation_folder_inside_the_training_folder(tmp_path: Path, fill: Fill, grays: Grays) -> None:
    for number, path in enumerate(fill(tmp_path / "train", 3) + fill(tmp_path / "held-out", 3)):
        Image.new("RGB", (16, 16), (number, number, number)).save(path)
    (tmp_path / "link").symlink_to(tmp_path / "held-out")
    data = opened(tmp_path, validation_path=str(tmp_path / "held-out"))
    assert (sorted(held_out(data)), trained_on(data, grays)) == ([3, 4, 5], {0, 1, 2})
    with pytest.raises(DataError, match=r"every image .* is also in data\.validation_path"):
        opened(tmp_path / "held-out", validation_path=str(tmp_path / "held-out"))


def test_shards_and_datasets_of_older_runs_hold_out_their_last_share(
    tmp_path: Path, shards: Callable[..., str], parquet: Callable[..., str], png: Callable[..., bytes], grays: Grays
) -> None:
    rows = parquet([[png(gray) for gray in range(4)], [png(gray) for gray in range(4, 10)]])
    cases = [
        ({"path": shards([4, 6]), "source": "webdataset"}, "8 images in 2 tar shards", "part-01.tar/008.png"),
        ({"path": rows, "source": "dataset", "cache_dir": str(tmp_path)}, f"8 images of the dataset {rows}", "row 8"),
    ]
    for options, description, first in cases:
        data = opened(holdout=0.2, holdout_rule="last", **options)
        assert data.description == description
        assert next(iter(data.held_out)).name == first
        assert (held_out(data), trained_on(data, grays)) == ([8, 9], set(range(8)))


def class_shards(tmp_path: Path, write_tar: Callable[..., Path], png: Callable[..., bytes], to: str) -> str:
    """10 tar files of 30 images each: those of shard s have the gray values 20 * s to 20 * s + 19, some twice."""
    for shard in range(10):
        files = [(f"{number}.png", png(20 * shard + number % 20)) for number in range(30)]
        write_tar(tmp_path / to / f"{shard}.tar", files)
    return str(tmp_path / to)


def test_shards_hold_out_by_their_names(
    tmp_path: Path, write_tar: Callable[..., Path], png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of shard and member, wherever the shards lie and however they are named to us; a new shard changes nothing."""
    folder = Path(class_shards(tmp_path, write_tar, png, "a/b"))
    options = {"source": "webdataset", "evaluation_images": 100}
    data = opened(folder, **options)
    names = [item.name for item in data.held_out]
    assert 4 <= len(names) <= 30
    assert len({name.partition("/")[0] for name in names}) >= 4
    write_tar(tmp_path / "a" / "b" / "x.tar", [(f"{number}.png", png(number)) for number in range(30)])
    monkeypatch.chdir(tmp_path / "a")
    for path in (
        str(folder),
        "b",
        "./b/",
        str(folder / "*.tar"),
        "b/{0..9}.tar",
        f"{tmp_path}/a/b/{{x,0,1,2,3,4,5,6,7,8,9}}.tar",
    ):
        found = [item.name for item in opened(path, **options).held_out]
        assert [name for name in found if not name.startswith("x")] == names, path


def test_datasets_hold_out_by_the_paths_in_them(
    tmp_path: Path, classes: Path, parquet: Callable[..., str], png: Callable[..., bytes], grays: Grays
) -> None:
    """The same images of a folder and of a dataset made of it; without paths, by the number of the row."""
    options = {"source": "dataset", "evaluation_images": 100, "cache_dir": str(tmp_path / "cache")}
    expected = held_out(opened(classes, evaluation_images=100))
    data = opened(classes, **options)
    assert held_out(data) == expected
    assert trained_on(data, grays, steps=50) == set(range(200)) - set(expected)
    rows = parquet([[png(gray) for gray in range(200)]])
    for column in ("image", "raw"):
        data = opened(rows, image_column=column, **options)
        numbers = [int(item.name.removeprefix("row ")) for item in data.held_out]
        assert len({gray // 10 for gray in numbers}) >= 4
        assert numbers == held_out(data)
        assert trained_on(data, grays, steps=50) == set(range(200)) - set(numbers)


def test_streams_hold_out_by_content_from_all_shards(
    tmp_path: Path, write_tar: Callable[..., Path], png: Callable[..., bytes], grays: Grays
) -> None:
    """Copies too; the shards may be renamed, repacked or joined by others."""
    folder = class_shards(tmp_path, write_tar, png, "shards")
    options = {"source": "webdataset", "streaming": True, "shuffle_block": 50, "evaluation_images": 8, "holdout": 0.15}
    data = opened(folder, **options)
    found = held_out(data)
    assert len(found) == 8
    assert len({gray // 20 for gray in found}) >= 6
    assert held_out(data) == found
    every = set(held_out(opened(folder, **{**options, "evaluation_images": 300})))
    assert set(found) <= every
    assert 8 < len(every) < 55
    assert trained_on(data, grays, steps=80) == set(range(200)) - every
    contents = [(f"{gray}.png", png(gray)) for gray in reversed(range(250))]
    write_tar(tmp_path / "again" / "one.tar", contents)
    again = set(held_out(opened(tmp_path / "again", **{**options, "evaluation_images": 300})))
    assert {gray for gray in again if gray < 200} == every


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_stream_holds_out_one_at_least_and_trains_on_one(
    tmp_path: Path, write_tar: Callable[..., Path], png: Callable[..., bytes], grays: Grays
) -> None:
    files = [(f"{gray}.png", png(gray)) for gray in range(5)] + [("bad.png", b""), ("worse.png", b"text")]
    tar = str(write_tar(tmp_path / "a.tar", files))
    options = {"source": "webdataset", "streaming": True}
    few, most = opened(tar, holdout=1e-9, **options), opened(tar, holdout=1 - 1e-9, **options)
    (first,) = held_out(few)
    assert trained_on(few, grays) == set(range(5)) - {first}
    (last,) = trained_on(most, grays)
    assert set(held_out(most)) == set(range(5)) - {last}
    assert last != first


def test_streams_of_older_runs_hold_out_their_first_images(
    shards: Callable[..., str], parquet: Callable[..., str], png: Callable[..., bytes], grays: Grays
) -> None:
    rows = parquet([[png(gray) for gray in range(4)], [png(gray) for gray in range(4, 10)]])
    options = {"streaming": True, "evaluation_images": 3, "shuffle_block": 4, "holdout_rule": "last"}
    cases = [
        ({"path": shards([4, 6]), "source": "webdataset"}, "a stream of 2 tar shards"),
        ({"path": rows, "source": "dataset"}, f"a stream of 2 shards of the dataset {rows}"),
    ]
    for changes, description in cases:
        data = opened(**options, **changes)
        assert data.description == description
        assert (held_out(data), trained_on(data, grays)) == ([0, 1, 2], set(range(3, 10)))


@pytest.mark.parametrize("streaming", [False, True])
def test_validation_split_and_folder(
    tmp_path: Path, parquet: Callable[..., str], png: Callable[..., bytes], grays: Grays, fill: Fill, streaming: bool
) -> None:
    folder = parquet([[png(gray) for gray in range(4)], [png(2), png(9)]])
    (Path(folder) / "train-01.parquet").rename(Path(folder) / "test-00.parquet")
    fill(tmp_path / "photos", 2)
    options = {"source": "dataset", "streaming": streaming, "cache_dir": str(tmp_path / "cache")}
    data = opened(folder, validation_split="test", **options)
    assert (sorted(held_out(data)), trained_on(data, grays)) == ([2, 9], {0, 1, 2, 3})
    data = opened(folder, validation_path=str(tmp_path / "photos"), **options)
    assert (sorted(held_out(data)), trained_on(data, grays)) == ([0, 1], {0, 1, 2, 3})


def test_hostile_files_everywhere(
    tmp_path: Path,
    write_tar: Callable[..., Path],
    parquet: Callable[..., str],
    png: Callable[..., bytes],
    grays: Grays,
) -> None:
    """The same files in a folder, in a tar file and in a dataset, at random and as a stream: the same is trained on."""
    bomb = bytearray(b"BM" + bytes(12) + (40).to_bytes(4, "little") + (60_000).to_bytes(4, "little") * 2)
    bomb += (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    bad = [b"", b"text that is called .png", bytes(bomb), png(50, 300, 300)[:60], png(60, 7, 30)]
    files = [content for gray, worse in enumerate(bad) for content in (png(gray), worse)] + [png(5), png(6)]
    (tmp_path / "photos").mkdir()
    for number, content in enumerate(files):
        (tmp_path / "photos" / f"{number:02d}.png").write_bytes(content)
    tar = write_tar(tmp_path / "all.tar", [(f"{number:02d}.png", content) for number, content in enumerate(files)])
    rows = parquet([files])
    options = {"small_images": "refuse", "evaluation_size": 16, "evaluation_images": 1, "holdout": 0.01}
    cases = [
        {"path": str(tmp_path / "photos")},
        {"path": str(tar), "source": "webdataset"},
        {"path": str(tar), "source": "webdataset", "streaming": True},
        {"path": rows, "source": "dataset", "cache_dir": str(tmp_path / "cache")},
        {"path": rows, "source": "dataset", "streaming": True},
    ]
    for case in cases:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data = opened(**options, **case)
            seen = trained_on(data, grays)
        assert seen == set(range(7)) - set(held_out(data)), case
        assert len(seen) == 6, case
        assert data.skipped.by_kind() == {"unreadable": 4, "too small": 1}, case
        assert sum(str(warning.message).startswith("skipped") for warning in caught) == 5, case
        reasons = " ".join(skip.reason for skip in data.skipped.first)
        for reason in ("the file is empty", "not an image", "decompression bomb", "truncated", "7x30"):
            assert reason in reasons, case


@pytest.mark.filterwarnings("ignore:skipped", "ignore:none of the")
def test_sources_without_anything_usable(
    tmp_path: Path, write_tar: Callable[..., Path], parquet: Callable[..., str], png: Callable[..., bytes], fill: Fill
) -> None:
    for path in fill(tmp_path / "bad", 4)[:3]:
        path.write_bytes(b"")
    for path in fill(tmp_path / "unmeasurable", 4)[3:]:
        path.write_bytes(b"")
    tar = str(write_tar(tmp_path / "a.tar", [("a.png", b""), ("b.png", b"")]))
    empty = str(write_tar(tmp_path / "empty.tar", [("a.txt", b"")]))
    rows = parquet([[png(1), png(1)]])
    stream = {"source": "webdataset", "streaming": True}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"path": tmp_path / "bad"}, r"none of the \d training images can be used"),
        (
            {"path": tmp_path / "unmeasurable", "holdout_rule": "last"},
            "none of the 1 held-out images can be used, the first is .*photo-003",
        ),
        ({"path": tmp_path / "bad", "validation_path": str(tmp_path / "nowhere")}, r"data\.validation_path must name"),
        ({"path": tar, "source": "webdataset"}, "none of the 1 held-out images can be used"),
        ({"path": empty, "source": "webdataset"}, "must name tar shards with images, got 1 shards without"),
        ({"path": tar, **stream}, "must hold images, got none that can be used as held-out ones"),
        (
            {"path": rows, "source": "dataset", "streaming": True},
            "got none that can be used besides held-out ones",
        ),
        ({"path": fill(tmp_path / "one", 1)[0].parent}, "must hold at least 2 images, one of them held out, got 1"),
    ]
    for options, message in cases:
        with pytest.raises(DataError, match=message):
            opened(**options)


def test_damaged_shard_is_named(tmp_path: Path, shards: Callable[..., str], grays: Grays) -> None:
    folder = Path(shards([3, 4]))
    cut = folder / "part-00.tar"
    with tarfile.open(cut) as archive:
        end = archive.getmembers()[-1].offset
    cut.write_bytes(cut.read_bytes()[:end])
    with pytest.warns(UserWarning, match=r"part-00.tar: it is cut off or damaged: its end mark is missing; .* 2$"):
        data = opened(folder, source="webdataset", holdout=0.01)
    (found,) = held_out(data)
    assert trained_on(data, grays) == {0, 1, 3, 4, 5, 6} - {found}


def test_small_held_out_images_are_refused_if_small_ones_are(tmp_path: Path, fill: Fill) -> None:
    paths = fill(tmp_path, 10)
    first, *rest = held_out(opened(tmp_path, holdout=0.5))
    assert rest
    Image.new("RGB", (15, 40), (99, 99, 99)).save(paths[first])
    assert held_out(opened(tmp_path, holdout=0.5)) == [99, *rest]
    with pytest.warns(UserWarning, match="too small"):
        assert held_out(opened(tmp_path, holdout=0.5, small_images="refuse")) == rest


def test_held_out_images_are_decoded_when_they_are_asked_for(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening decodes the first one, to see that there is one; each iteration decodes all, in order, and keeps none.

    Up to `IN_MEMORY` images are kept as tensors: decoded once.
    """
    fill(tmp_path, 20)
    decoded: list[weakref.ref[Image.Image]] = []

    def recorded(path: str, warn: bool) -> Image.Image:
        image = read_image(path, warn)
        decoded.append(weakref.ref(image))
        return image

    monkeypatch.setattr(image_sources, "read_image", recorded)
    for images, again in ((IN_MEMORY, 0), (IN_MEMORY + 1, 10)):
        decoded.clear()
        data = opened(tmp_path, holdout=0.5, evaluation_images=images, holdout_rule="last")
        assert len(decoded) == 2  # and the first one to train on
        for count in (10, again):
            decoded.clear()
            assert held_out(data) == list(range(10, 20))
            assert len(decoded) == count
        assert [image for image in decoded if image() is not None] == []


def test_held_out_images_that_all_vanish_are_an_error(tmp_path: Path, fill: Fill) -> None:
    paths = fill(tmp_path, 4)
    data = opened(tmp_path, holdout=0.5, evaluation_images=IN_MEMORY + 1, holdout_rule="last")
    assert held_out(data) == [2, 3]
    paths[2].unlink()
    with (
        pytest.warns(UserWarning, match=r"skipped \(unreadable\) .*photo-002.png: no such file"),
        pytest.warns(UserWarning, match=r"held-out images changed during the run: 1 differ \(photo-002.png\)"),
    ):
        assert held_out(data) == [3]
    assert held_out(data) == [3]  # warns once
    assert data.held_out.changed == {"photo-002.png"}
    paths[3].unlink()
    with (
        pytest.warns(UserWarning, match="photo-003"),
        pytest.raises(DataError, match="none of the 2 held-out images can be used"),
    ):
        held_out(data)


def test_a_link_to_a_held_out_image_is_not_trained_on(tmp_path: Path, fill: Fill) -> None:
    """Under any name, and through a linked folder."""
    fill(tmp_path / "images", 8)
    files = sorted((tmp_path / "images").iterdir())
    (tmp_path / "images" / "more").mkdir()
    for index, file in enumerate(files):
        (tmp_path / "images" / "more" / f"link-{index}.png").symlink_to(file)
    for seed in range(4):
        data = opened(tmp_path / "images", holdout=0.3, holdout_seed=seed)
        assert isinstance(data.samples, ImageSamples)
        source = data.samples.source
        trained = {os.path.realpath(source.name(index)) for index in range(len(source))}
        held_out = {os.path.realpath(tmp_path / "images" / item.name) for item in data.held_out}
        assert trained
        assert held_out
        assert not trained & held_out
