"""Are the images in tar files found, read in any order and from the front, and is a damaged file survived?"""

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from litevae.data.errors import DataError, UnreadableImageError
from litevae.data.images import decode_image
from litevae.data.streaming.shards import ShardSource, expand_braces, find_shards, read_shards, shard_folder

Write = Callable[..., Path]


@pytest.fixture
def shard(tmp_path: Path, write_tar: Write, png: Callable[..., bytes]) -> Path:
    """Two images, and what else may be in a shard."""
    files = [
        ("dir/a.json", b"{not json"),
        ("dir/a.png", png(1)),
        ("dir/a.cls", b"three"),
        ("dir/._a.png", b"resource fork"),
        ("b.JPG", png(2)),
        ("b.mask.png", png(9)),
    ]
    return write_tar(tmp_path / "a.tar", files)


def sources(shards: list[str], ending: str | None) -> tuple[list[str], list[str]]:
    source = ShardSource(shards, ending)
    grays = [source.read(index).getpixel((0, 0))[0] for index in range(len(source))]
    streamed = [row for row in read_shards(shards, ending) if row["content"] is not None]
    assert [decode_image(row["content"], "x").getpixel((0, 0))[0] for row in streamed] == grays
    assert [row["name"] for row in streamed] == [source.name(index) for index in range(len(source))]
    return [source.title(index) for index in range(len(source))], grays


def test_images_are_found_by_their_endings(shard: Path) -> None:
    assert sources([str(shard)], None) == (["a.tar/dir/a.png", "a.tar/b.JPG", "a.tar/b.mask.png"], [1, 2, 9])
    assert sources([str(shard)], "jpg") == (["a.tar/b.JPG"], [2])
    assert ShardSource([str(shard)], None).damaged == []


def test_index_points_at_the_bytes(tmp_path: Path, write_tar: Write, png: Callable[..., bytes]) -> None:
    """Also behind long names, which take headers of their own, and across shards."""
    first = write_tar(tmp_path / "1.tar", [("x" * 300 + ".png", png(1)), ("é.png", png(2))])
    second = write_tar(tmp_path / "2.tar", [])
    third = write_tar(tmp_path / "3.tar", [("c.png", png(3))])
    source = ShardSource([str(first), str(second), str(third)], None)
    assert [source.read(index).getpixel((0, 0))[0] for index in (2, 0, 1)] == [3, 1, 2]
    assert source.title(2) == "3.tar/c.png"
    assert source.damaged == []


@pytest.mark.parametrize("cut", [1, 512, 3000])
def test_cut_off_shard_keeps_what_is_whole(
    tmp_path: Path, write_tar: Write, png: Callable[..., bytes], cut: int
) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{gray}.png", png(gray, 200, 200)) for gray in range(4)])
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    end = {1: members[3].offset_data + 1, 512: members[3].offset + 300, 3000: members[3].offset}[cut]
    path.write_bytes(path.read_bytes()[:end])

    source = ShardSource([str(path)], None)
    (damage,) = source.damaged
    assert (damage.name, damage.kind) == (str(path), "unreadable")
    assert [source.read(index).getpixel((0, 0))[0] for index in range(3)] == [0, 1, 2]
    if len(source) == 4:
        with pytest.raises(UnreadableImageError):
            source.read(3)

    *rows, last = read_shards([str(path)], None)
    assert [decode_image(row["content"], "x").getpixel((0, 0))[0] for row in rows] == [0, 1, 2]
    assert (last["name"], last["content"]) == (str(path), None)
    assert last["damage"]


@pytest.mark.parametrize("content", [b"", b"no tar file at all" * 100, bytes(range(256)) * 40])
def test_files_that_are_no_shards(tmp_path: Path, content: bytes, shard: Path) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(content)
    source = ShardSource([str(bad), str(shard)], None)
    assert [skip.name for skip in source.damaged] == [str(bad)]
    assert source.read(0).getpixel((0, 0)) == (1, 1, 1)
    rows = list(read_shards([str(bad), str(shard)], None))
    assert [row["damage"] is None for row in rows] == [False, True, True, True]


def test_negative_and_huge_sizes(tmp_path: Path, write_tar: Write, png: Callable[..., bytes]) -> None:
    """Python's tarfile before 3.11.14 walks in a circle over a negative size; a size is only a claim."""
    path = write_tar(tmp_path / "a.tar", [("a.png", png(1)), ("b.png", png(2)), ("c.png", png(3))])
    with tarfile.open(path) as archive:
        at = archive.getmembers()[1].offset
    whole = path.read_bytes()
    for size in (-512, -1024, 2**40):
        header = bytearray(whole[at : at + 512])
        header[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 2**88).to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        path.write_bytes(whole[:at] + header + whole[at + 512 :])
        source = ShardSource([str(path)], None)
        assert len(source.damaged) == 1
        assert source.read(0).getpixel((0, 0)) == (1, 1, 1)
        rows = list(read_shards([str(path)], None))
        assert rows[0]["content"] == png(1)
        assert rows[-1]["damage"]


def test_compressed_shards_are_read_from_the_front(tmp_path: Path, shard: Path, png: Callable[..., bytes]) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(shard.read_bytes()))
    assert [row["content"] for row in read_shards([str(path)], None)] == [png(1), png(2), png(9)]
    with pytest.raises(DataError, match=r"is compressed and can only be read from its front: .*data\.streaming=true"):
        ShardSource([str(path)], None)
    path.write_bytes(path.read_bytes()[:150])
    assert list(read_shards([str(path)], None))[-1]["damage"]


def test_find_shards(tmp_path: Path, write_tar: Write) -> None:
    for name in ("a-00.tar", "a-01.tar", "b/c.tar.gz", "b/notes.txt"):
        write_tar(tmp_path / name, [])

    def found(path: str) -> list[str]:
        return [Path(shard).relative_to(tmp_path).as_posix() for shard in find_shards(path)]

    assert found(str(tmp_path)) == ["a-00.tar", "a-01.tar", "b/c.tar.gz"]
    assert found(f"{tmp_path}/a-*.tar") == ["a-00.tar", "a-01.tar"]
    assert found(f"{tmp_path}/a-{{00..01}}.tar") == ["a-00.tar", "a-01.tar"]
    assert find_shards("https://example.org/{a,b}-{8..10}.tar")[:3] == [
        "https://example.org/a-8.tar",
        "https://example.org/a-9.tar",
        "https://example.org/a-10.tar",
    ]
    with pytest.raises(DataError, match=r"data\.path must name tar shards .* got .*x-\*\.tar, which matches none"):
        find_shards(f"{tmp_path}/x-*.tar")


def test_identity_is_the_path_below_what_data_path_fixes(
    tmp_path: Path, write_tar: Write, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "all" / "x" / "0.tar", [("a.png", png(0)), ("b/c.png", png(1))])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (
        "all",
        "./all/",
        str(tmp_path / "all"),
        "~/all",
        "all/*/0.tar",
        "all/{x,y}/{0..1}.tar",
        "~/all/x*/?.tar",
    ):
        shards = [shard for shard in find_shards(path) if Path(shard).exists()]
        found = list(ShardSource(shards, None, shard_folder(path)).identities())
        assert found == ["x/0.tar/a.png", "x/0.tar/b/c.png"], path
    assert shard_folder("https://example.org/a/b-{0..9}.tar?key=/x") == "https://example.org/a/"
    assert shard_folder("a.tar") == ""


def test_braces() -> None:
    assert expand_braces("a{098..101}b") == ["a098b", "a099b", "a100b", "a101b"]
    assert expand_braces("{a,b}{1..2}") == ["a1", "a2", "b1", "b2"]
    assert expand_braces("plain{}.tar") == ["plain{}.tar"]
