"""Is each kind of source opened as the config says, and is what is held out never trained on?"""

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


def test_last_share_of_a_folder(tmp_path: Path, fill: Fill, grays: Grays) -> None:
    fill(tmp_path / "a", 10)
    data = opened(tmp_path, holdout=0.2)
    assert data.description == "8 images"
    assert held_out(data) == [8, 9]
    assert trained_on(data, grays) == set(range(8))


def test_at_least_one_image_is_held_out_and_one_trained_on(tmp_path: Path, fill: Fill, grays: Grays) -> None:
    fill(tmp_path, 2)
    for holdout in (0.01, 0.99):
        data = opened(tmp_path, holdout=holdout)
        assert (held_out(data), trained_on(data, grays)) == ([1], {0})


def test_held_out_images_beyond_the_limit_are_not_trained_on_either(tmp_path: Path, fill: Fill, grays: Grays) -> None:
    fill(tmp_path, 10)
    data = opened(tmp_path, holdout=0.5, evaluation_images=2)
    assert (held_out(data), trained_on(data, grays)) == ([5, 6], set(range(5)))


def test_validation_folder_inside_the_training_folder(tmp_path: Path, fill: Fill, grays: Grays) -> None:
    for number, path in enumerate(fill(tmp_path / "train", 3) + fill(tmp_path / "held-out", 3)):
        Image.new("RGB", (16, 16), (number, number, number)).save(path)
    (tmp_path / "link").symlink_to(tmp_path / "held-out")
    data = opened(tmp_path, validation_path=str(tmp_path / "held-out"))
    assert (held_out(data), trained_on(data, grays)) == ([3, 4, 5], {0, 1, 2})
    with pytest.raises(DataError, match=r"every image .* is also in data\.validation_path"):
        opened(tmp_path / "held-out", validation_path=str(tmp_path / "held-out"))


def test_shards_and_datasets_hold_out_their_last_share(
    tmp_path: Path, shards: Callable[..., str], parquet: Callable[..., str], png: Callable[..., bytes], grays: Grays
) -> None:
    rows = parquet([[png(gray) for gray in range(4)], [png(gray) for gray in range(4, 10)]])
    cases = [
        ({"path": shards([4, 6]), "source": "webdataset"}, "8 images in 2 tar shards", "part-01.tar/008.png"),
        ({"path": rows, "source": "dataset", "cache_dir": str(tmp_path)}, f"8 images of the dataset {rows}", "row 8"),
    ]
    for options, description, first in cases:
        data = opened(holdout=0.2, **options)
        assert data.description == description
        assert next(iter(data.held_out)).name == first
        assert (held_out(data), trained_on(data, grays)) == ([8, 9], set(range(8)))


def test_streams_hold_out_their_first_images(
    shards: Callable[..., str], parquet: Callable[..., str], png: Callable[..., bytes], grays: Grays
) -> None:
    rows = parquet([[png(gray) for gray in range(4)], [png(gray) for gray in range(4, 10)]])
    options = {"streaming": True, "evaluation_images": 3, "shuffle_block": 4}
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
    assert (held_out(data), trained_on(data, grays)) == ([2, 9], {0, 1, 2, 3})
    data = opened(folder, validation_path=str(tmp_path / "photos"), **options)
    assert (held_out(data), trained_on(data, grays)) == ([0, 1], {0, 1, 2, 3})


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
    options = {"small_images": "refuse", "evaluation_size": None, "evaluation_images": 1, "holdout": 0.01}
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
        expected = {1, 2, 3, 4, 5, 6} if case.get("streaming") else {0, 1, 2, 3, 4, 5}
        assert seen == expected, case
        assert data.skipped.by_kind() == {"unreadable": 4, "too small": 1}, case
        assert len(caught) == 5, case
        reasons = " ".join(skip.reason for skip in data.skipped.first)
        for reason in ("the file is empty", "not an image", "decompression bomb", "truncated", "7x30"):
            assert reason in reasons, case


@pytest.mark.filterwarnings("ignore:skipped")
def test_sources_without_anything_usable(
    tmp_path: Path, write_tar: Callable[..., Path], parquet: Callable[..., str], png: Callable[..., bytes], fill: Fill
) -> None:
    for path in fill(tmp_path / "bad", 4)[:3]:
        path.write_bytes(b"")
    for path in fill(tmp_path / "unmeasurable", 4)[3:]:
        path.write_bytes(b"")
    tar = str(write_tar(tmp_path / "a.tar", [("a.png", b""), ("b.png", b"")]))
    empty = str(write_tar(tmp_path / "empty.tar", [("a.txt", b"")]))
    rows = parquet([[png(1), png(2)]])
    stream = {"source": "webdataset", "streaming": True}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"path": tmp_path / "bad"}, "none of the 3 training images can be used"),
        ({"path": tmp_path / "unmeasurable"}, "none of the 1 held-out images can be used, the first is .*photo-003"),
        ({"path": tmp_path / "bad", "validation_path": str(tmp_path / "nowhere")}, r"data\.validation_path must name"),
        ({"path": tar, "source": "webdataset"}, "none of the 1 held-out images can be used"),
        ({"path": empty, "source": "webdataset"}, "must name tar shards with images, got 1 shards without"),
        ({"path": tar, **stream}, "must hold images, got none that can be used as held-out ones"),
        (
            {"path": rows, "source": "dataset", "streaming": True},
            "got none that can be used besides the 2 held-out ones",
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
    assert (held_out(data), trained_on(data, grays)) == ([6], {0, 1, 3, 4, 5})


def test_small_held_out_images_are_refused_if_small_ones_are(tmp_path: Path, fill: Fill) -> None:
    *_, last = fill(tmp_path, 10)
    Image.new("RGB", (15, 40)).save(last)
    data = opened(tmp_path, holdout=0.2)
    assert held_out(data) == [8, 0]
    with pytest.warns(UserWarning, match="too small"):
        assert held_out(opened(tmp_path, holdout=0.2, small_images="refuse")) == [8]


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
        data = opened(tmp_path, holdout=0.5, evaluation_images=images)
        assert len(decoded) == 2  # and the first one to train on
        for count in (10, again):
            decoded.clear()
            assert held_out(data) == list(range(10, 20))
            assert len(decoded) == count
        assert [image for image in decoded if image() is not None] == []


def test_held_out_images_that_all_vanish_are_an_error(tmp_path: Path, fill: Fill) -> None:
    paths = fill(tmp_path, 4)
    data = opened(tmp_path, holdout=0.5, evaluation_images=IN_MEMORY + 1)
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
