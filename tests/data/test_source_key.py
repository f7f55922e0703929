"""Does the key of a source change with its images, and stay when nothing has changed?"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from litevae.data.image_sources import FileSource, SourceSubset, find_images
from litevae.data.source_key import source_key
from litevae.data.streaming import ShardSource, shard_folder

Png = Callable[..., bytes]


def folder_key(folder: Path) -> str:
    key = source_key(FileSource(find_images(str(folder), "DATA"), str(folder)))
    assert key is not None
    return key


@pytest.fixture
def folder(tmp_path: Path, png: Png) -> Path:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    for index in range(4):
        (tmp_path / "images" / "cat" / f"{index}.png").write_bytes(png(index))
    return tmp_path / "images"


def rewrite(path: Path) -> None:
    """Another content of the same size, that keeps its time: only the entry tells."""
    status = path.stat()
    time.sleep(0.02)  # the clock of some file systems ticks every 10 ms
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_every_change_of_a_folder_shows(folder: Path, png: Png) -> None:
    first = folder / "cat" / "0.png"
    found = [folder_key(folder)]
    rewrite(first)
    found.append(folder_key(folder))
    os.utime(first, ns=(0, 10**18))
    found.append(folder_key(folder))
    first.rename(folder / "cat" / "0b.png")
    found.append(folder_key(folder))
    (folder / "more.png").write_bytes(png(5))
    found.append(folder_key(folder))
    (folder / "more.png").unlink()
    (folder / "cat" / "3.png").unlink()
    found.append(folder_key(folder))
    assert len(set(found)) == len(found)


def test_the_key_stays_and_moves_with_the_folder(folder: Path, png: Png) -> None:
    before = folder_key(folder)
    (folder / "notes.txt").write_text("not an image")
    assert folder_key(folder) == before
    assert folder_key(folder.rename(folder.with_name("elsewhere"))) == before
    copied = shutil.copytree(folder.with_name("elsewhere"), folder)  # with the times of its contents
    assert folder_key(Path(copied)) != before


def test_a_file_that_went_away_is_another_source(folder: Path) -> None:
    source = FileSource(find_images(str(folder), "DATA"), str(folder))
    before = source_key(source)
    (folder / "cat" / "0.png").unlink()
    assert source_key(source) not in (before, None)


def test_a_choice_of_images_and_its_order(folder: Path) -> None:
    source = FileSource(find_images(str(folder), "DATA"), str(folder))
    keys = [source_key(SourceSubset(source, np.array(chosen))) for chosen in ([0, 1], [1, 0], [0, 1, 2], [0], [0, 1])]
    assert len({*keys, source_key(source)}) == 5
    assert keys[0] == keys[-1]


def test_tar_shards(tmp_path: Path, write_tar: Callable[..., Path], png: Png) -> None:
    def key() -> str | None:
        paths = sorted(map(str, tmp_path.glob("*.tar")))
        return source_key(ShardSource(paths, None, shard_folder(str(tmp_path))))

    write_tar(tmp_path / "0.tar", [("a.png", png(0)), ("b.png", png(1))])
    found = [key()]
    assert key() == found[0]
    time.sleep(0.02)
    write_tar(tmp_path / "0.tar", [("a.png", png(0)), ("b.png", png(2))])
    found.append(key())
    write_tar(tmp_path / "1.tar", [("a.png", png(0))])
    found.append(key())
    assert len({*found, None}) == 4


def test_datasets(tmp_path: Path, parquet: Callable[..., str], png: Png) -> None:
    from litevae.data.config import DataConfig
    from litevae.data.streaming import open_rows

    def key(folder: str, column: str | None = None) -> str | None:
        config = DataConfig(source="dataset", path=folder, cache_dir=str(tmp_path / "own"), image_column=column)
        return source_key(open_rows(config, "train"))

    folder = parquet([[png(0), png(1)]])
    before = key(folder)
    assert before is not None
    assert key(folder) == before
    assert key(folder, "raw") != before
    shutil.rmtree(folder)
    assert key(parquet([[png(0), png(2)]])) != before


def test_of_a_stream_nothing_cheap_is_known(tmp_path: Path, write_tar: Callable[..., Path], png: Png) -> None:
    from litevae.data.streaming import open_shard_stream

    write_tar(tmp_path / "0.tar", [("a.png", png(0))])
    stream = open_shard_stream([str(tmp_path / "0.tar")], None)
    assert source_key(stream) is None
