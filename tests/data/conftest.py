"""What do the data tests share? Images known by their gray value, and folders, tar shards and datasets of them.

Nothing is downloaded, and the cache of the datasets library is a temporary folder.
"""

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported

Files = Sequence[tuple[str, bytes]]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a config without cache_dir writes to."""
    from datasets import config
    from huggingface_hub import constants

    config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True  # another test may have imported them before
    return config.HF_DATASETS_CACHE


def encode(gray: int, width: int = 20, height: int = 16) -> bytes:
    """A PNG file of one gray value."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (gray, gray, gray)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    return encode


@pytest.fixture
def fill() -> Callable[[Path, int], list[Path]]:
    """fill(folder, count): photo-000.png of gray value 0 and so on."""

    def write(folder: Path, count: int) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"photo-{number:03d}.png" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(encode(number))
        return paths

    return write


@pytest.fixture
def write_tar() -> Callable[[Path, Files], Path]:
    """write_tar(path, [(name, content), ...])"""

    def write(path: Path, files: Files) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for name, content in files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def shards(tmp_path: Path, write_tar: Callable[[Path, Files], Path]) -> Callable[[Sequence[int]], str]:
    """shards([3, 2]): two tar files with gray values 0, 1, 2 and 3, 4, and a json file beside each image."""

    def write(counts: Sequence[int]) -> str:
        gray = 0
        for shard, count in enumerate(counts):
            files = []
            for _ in range(count):
                files += [(f"{gray:03d}.json", b"{"), (f"{gray:03d}.png", encode(gray))]
                gray += 1
            write_tar(tmp_path / "shards" / f"part-{shard:02d}.tar", files)
        return str(tmp_path / "shards")

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[[Sequence[Sequence[bytes | None]]], str]:
    """parquet([[png, png], [png]]): a dataset in a folder, one file for each inner list; None is an empty cell."""

    def write(files: Sequence[Sequence[bytes | None]]) -> str:
        from datasets import Dataset, Features, Value
        from datasets import Image as ImageFeature

        folder = tmp_path / "parquet"
        folder.mkdir()
        features = Features({"label": Value("int64"), "image": ImageFeature(), "raw": Value("binary")})
        for number, contents in enumerate(files):
            images = [None if content is None else {"bytes": content, "path": None} for content in contents]
            columns = {"label": list(range(len(images))), "image": images, "raw": list(contents)}
            Dataset.from_dict(columns, features=features).to_parquet(folder / f"train-{number:02d}.parquet")
        return str(folder)

    return write


@pytest.fixture(scope="session")
def grays() -> Callable[[Tensor], list[int]]:
    """The gray value of every crop in a batch [B, 3, H, W], each of which must have one."""

    def values(batch: Tensor) -> list[int]:
        assert (batch == batch[:, :1, :1, :1]).all()
        return [int(value) for value in batch[:, 0, 0, 0]]

    return values
