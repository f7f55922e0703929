"""Is a kept reference used only for what it was made of, and does a bad folder or file cost time alone?"""

import errno
import json
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae.evaluation.reference_cache import Reference, ReferenceCache, default_cache

DESCRIPTION = {
    "data": "0123",
    "protocol": {"name": "ldm", "resize": "bilinear", "crop": "centre square"},
    "network": "Inception",
    "weights": "sha256:89ab",
    "images": 50_000,
    "size": 256,
}
REFERENCE = Reference(
    {"sum": torch.arange(6, dtype=torch.float64) / 7, "outer": torch.eye(6).double(), "count": torch.tensor(2**40)},
    "blake2b:cdef",
)


@pytest.fixture
def cache(tmp_path: Path) -> ReferenceCache:
    return ReferenceCache(tmp_path / "references")


@pytest.fixture
def saved(cache: ReferenceCache) -> Path:
    """The file of REFERENCE."""
    cache.save(DESCRIPTION, REFERENCE)
    path = cache.path(DESCRIPTION)
    assert path is not None
    return path


@contextmanager
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def assert_same(found: Reference | None, expected: Reference = REFERENCE) -> None:
    assert found is not None
    assert found.content == expected.content
    assert found.sums.keys() == expected.sums.keys()
    for name, tensor in expected.sums.items():
        assert found.sums[name].dtype == tensor.dtype
        assert torch.equal(found.sums[name], tensor)


@pytest.mark.usefixtures("saved")
def test_what_was_kept_comes_back(cache: ReferenceCache) -> None:
    with no_warning():
        assert_same(cache.load(dict(reversed(DESCRIPTION.items()))))


def changed(path: str, value: object) -> dict[str, Any]:
    description = json.loads(json.dumps(DESCRIPTION))
    *outer, last = path.split(".")
    inner = description
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return description


@pytest.mark.parametrize(
    "description",
    [
        changed("data", "0124"),
        changed("protocol.resize", "bilinear, antialiased"),
        changed("network", "DINOv2"),
        changed("weights", "sha256:89ac"),
        changed("images", 49_999),
        changed("size", 128),
        changed("more", None),
        {key: value for key, value in DESCRIPTION.items() if key != "network"},
    ],
    ids=["data", "protocol", "network", "weights", "images", "size", "a key more", "a key less"],
)
@pytest.mark.usefixtures("saved")
def test_whatever_differs_is_another_reference(cache: ReferenceCache, description: Mapping[str, Any]) -> None:
    with no_warning():
        assert cache.load(description) is None
        other = Reference({"count": torch.tensor(1)}, "blake2b:0")
        cache.save(description, other)
        assert_same(cache.load(description), other)
        assert_same(cache.load(DESCRIPTION))


def test_data_that_nothing_cheap_is_known_of_are_never_kept(cache: ReferenceCache, tmp_path: Path) -> None:
    cache.save(changed("data", None), REFERENCE)
    assert list(tmp_path.iterdir()) == []
    with no_warning():
        assert cache.load(changed("data", None)) is None


def test_without_a_folder_nothing_is_kept() -> None:
    with no_warning():
        ReferenceCache(None).save(DESCRIPTION, REFERENCE)
        assert ReferenceCache(None).load(DESCRIPTION) is None
        ReferenceCache(None).forget(DESCRIPTION)


def test_a_file_under_another_s_name_is_not_used(cache: ReferenceCache, saved: Path) -> None:
    other = cache.path(changed("size", 128))
    assert other is not None
    saved.rename(other)
    with pytest.warns(
        UserWarning, match=r"cannot be used \(it describes other statistics\); the statistics of the orig"
    ):
        assert cache.load(changed("size", 128)) is None


def rewrite(path: Path, change: Mapping[str, object]) -> None:
    torch.save({**torch.load(path, weights_only=True), **change}, path)


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "one bit", "folder", "format", "no description"])
def test_a_damaged_file_is_named_and_then_replaced(cache: ReferenceCache, saved: Path, damage: str) -> None:
    content = bytearray(saved.read_bytes())
    if damage in ("format", "no description"):
        rewrite(saved, {"format": 0} if damage == "format" else {"description": "{}"})
    elif damage == "folder":
        saved.unlink()
        saved.mkdir()
    else:
        content[content.index(REFERENCE.sums["sum"].numpy().tobytes())] ^= 1
        written = {"cut off": content[:-9], "empty": b"", "text": b"not a file of tensors", "one bit": content}
        saved.write_bytes(written[damage])
    with pytest.warns(UserWarning, match=rf"{saved} cannot be used \(.+\); the statistics of the originals are comp"):
        assert cache.load(DESCRIPTION) is None
    with no_warning():
        cache.save(DESCRIPTION, REFERENCE)
        assert_same(cache.load(DESCRIPTION))


def test_two_writers_and_a_reader(cache: ReferenceCache, saved: Path) -> None:
    """Whatever the moment, a reader sees one of the references whole."""
    references = [Reference({"sum": torch.full((1 << 12,), float(i)).double()}, f"blake2b:{i}") for i in range(2)]

    def write(reference: Reference) -> None:
        for _ in range(20):
            cache.save(DESCRIPTION, reference)

    cache.save(DESCRIPTION, references[0])
    writers = [threading.Thread(target=write, args=(reference,)) for reference in references]
    for writer in writers:
        writer.start()
    found = []
    with no_warning():
        while any(writer.is_alive() for writer in writers):
            found.append(cache.load(DESCRIPTION))
    for writer in writers:
        writer.join()
    assert found
    for reference in found:
        assert reference is not None
        assert_same(reference, references[int(reference.content[-1])])
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_only_warns(
    cache: ReferenceCache, saved: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", refuse)
        pattern = (
            rf"cannot be kept in {cache.folder} \(.*{os.strerror(error)}\); free space there, or name another folder"
        )
        with pytest.warns(UserWarning, match=pattern):
            cache.save(DESCRIPTION, Reference({"count": torch.tensor(1)}, "blake2b:0"))
    assert_same(cache.load(DESCRIPTION))
    assert list(saved.parent.iterdir()) == [saved]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    cache = ReferenceCache(tmp_path / "file" / "references")
    with pytest.warns(UserWarning, match="cannot be kept in"):
        cache.save(DESCRIPTION, REFERENCE)


def test_what_proved_to_be_of_other_images_is_forgotten(cache: ReferenceCache, saved: Path) -> None:
    with pytest.warns(UserWarning, match=rf"{saved} is of other images than those that were read; the statistics"):
        cache.forget(DESCRIPTION)
    assert not saved.exists()
    with no_warning():
        assert cache.load(DESCRIPTION) is None


def test_tensors_of_any_memory_layout_are_kept(cache: ReferenceCache) -> None:
    square = torch.arange(6.0).double().view(2, 3)
    reference = Reference({"transposed": square.T, "row": square[1]}, "blake2b:0")
    cache.save(DESCRIPTION, reference)
    assert_same(cache.load(DESCRIPTION), reference)


def test_the_environment_moves_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITEVAE_CACHE", str(tmp_path))
    assert default_cache().folder == tmp_path / "references"
    monkeypatch.delenv("LITEVAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_cache().folder == Path("/caches/litevae/references")
