"""Are the classes of images those that torchvision's ImageFolder, a dataset's column and tar members give?"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from litevae.data import DataError, open_images
from litevae.data.image_sources import FileSource, SourceSubset, find_images
from litevae.data.labels import read_labels
from litevae.data.streaming import DatasetSource, ShardSource


def save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(path)


def folder_of(path: Path, *names: str) -> FileSource:
    for name in names:
        save(path / name)
    return FileSource(find_images(str(path), "DATA"), str(path))


def test_folders_are_classes_as_in_torchvision(tmp_path: Path) -> None:
    from litevae import torchvision_shim

    torchvision_shim.install()
    from torchvision.datasets import ImageFolder

    source = folder_of(tmp_path, "dog/1.png", "cat/b/2.png", "cat/3.png", "dog/x/y/4.png")
    labels, oracle = read_labels(source), ImageFolder(str(tmp_path))
    assert labels is not None
    assert list(labels.classes) == oracle.classes
    of_path = dict(oracle.samples)
    assert labels.numbers.tolist() == [of_path[source.name(index)] for index in range(len(source))]
    some = read_labels(SourceSubset(source, np.array([3, 0])))
    assert some is not None
    assert some.numbers.tolist() == [labels.numbers[3], labels.numbers[0]]


@pytest.mark.parametrize("names", [("1.png", "2.png"), ("cat/1.png", "2.png"), ("all/1.png", "all/2.png")])
def test_a_folder_without_classes_has_none(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert read_labels(folder_of(tmp_path, *names)) is None


def test_the_built_in_photographs_have_none(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "2.png")
    assert read_labels(FileSource(sorted(tmp_path.rglob("*.png")))) is None


def dataset(features: datasets.Features, labels: list[object]) -> DatasetSource:
    images = [Image.new("RGB", (8, 8)) for _ in labels]
    rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    return DatasetSource(rows, "image")


def test_a_column_of_a_dataset(tmp_path: Path) -> None:
    named = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    labels = read_labels(dataset(named, [1, 0, 1]))
    assert labels is not None
    assert (labels.classes, labels.numbers.tolist()) == (("cat", "dog"), [1, 0, 1])
    numbers = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int32")})
    labels = read_labels(dataset(numbers, [3, 0]))
    assert labels is not None
    assert (labels.classes, labels.numbers.tolist()) == (("0", "1", "2", "3"), [3, 0])
    with pytest.raises(DataError, match="the column of classes must be one of image, label, got kind"):
        read_labels(dataset(numbers, [3, 0]), column="kind")
    text = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    with pytest.raises(DataError, match=r"the column label of a dataset must hold the numbers of classes, 0 and up"):
        read_labels(dataset(text, ["cat", "dog"]))
    with pytest.raises(DataError, match="must hold the numbers of classes"):
        read_labels(dataset(numbers, [-1, 0]))


def test_a_dataset_that_is_opened_keeps_its_classes(tmp_path: Path) -> None:
    """Though its images are read from a table without their column."""
    named = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    dataset(named, [1, 0, 1]).rows.save_to_disk(tmp_path / "saved")
    images = open_images(str(tmp_path / "saved"), split="train")
    labels = read_labels(images.source)
    assert labels is not None
    assert labels.classes == ("cat", "dog")
    order = images.source.indices.tolist()
    assert labels.numbers.tolist() == [[1, 0, 1][index] for index in order]


def shard(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def test_members_of_tar_shards(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    png = file.getvalue()
    first = shard(tmp_path / "0.tar", {"a.image.png": png, "a.cls": b"7\n", "b.cls": b"2", "b.png": png})
    second = shard(tmp_path / "1.tar", {"a.png": png, "a.cls": b"0"})  # the same key in another shard
    labels = read_labels(ShardSource([first, second], None))
    assert labels is not None
    assert (len(labels.classes), labels.numbers.tolist()) == (8, [7, 2, 0])
    without = shard(tmp_path / "2.tar", {"c.png": png})
    with pytest.warns(UserWarning, match="no labels: 1 of 3 images have no .cls beside them"):
        assert read_labels(ShardSource([first, without], None)) is None
