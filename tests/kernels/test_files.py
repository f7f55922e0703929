"""Does a replacement leave the old or the new, never half of either?"""

import errno
import os
import stat
from pathlib import Path

import pytest

from litevae_kernels.files import check_file, check_folder, remove_leftovers, replacing, user_cache, write_text


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert temporary.suffix == ".txt"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("a", "b"):
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
        assert [file.name for file in path.iterdir()] == [name]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["model", "model.v2.1"])
@pytest.mark.parametrize("killed_for_good", [False, True])
def test_folder_interrupted_between_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, killed_for_good: bool
) -> None:
    """The old folder goes aside whole before the new one takes its name; it comes back, at the latest on cleaning."""
    path = tmp_path / name
    path.mkdir()
    (path / "old").write_text("old")
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if target == path and (killed_for_good or not Path(source).name.endswith(".old.part")):
            raise KeyboardInterrupt
        replace(source, target)

    def save() -> None:
        with replacing(path) as temporary:
            temporary.mkdir()

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save()
    assert path.exists() != killed_for_good
    monkeypatch.undo()
    remove_leftovers(tmp_path)
    assert list(tmp_path.rglob("*")) == [path, path / "old"]


def test_leftovers_of_a_replacement_are_deleted(tmp_path: Path) -> None:
    for name in ("model", ".model.0.old.part", ".model.1.part"):
        (tmp_path / name).mkdir()
    (tmp_path / ".a.0.part.txt").touch()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_a_file_system_that_flushes_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refused(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refused)
    write_text(tmp_path / "a.txt", "new")
    with replacing(tmp_path / "model") as temporary:
        temporary.mkdir()
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "model"}


def test_exception_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_can_be_written_to(tmp_path: Path) -> None:
    check_folder("--output", tmp_path / "not" / "made" / "yet")
    check_file("--output", tmp_path / "a.PNG", [".png"])
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.png").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for place in ("file.png", "file.png/below", "link"):
        with pytest.raises(
            ValueError, match=r"--output must be a folder, got .*, where .*(file.png|link) is none; name"
        ):
            check_folder("--output", tmp_path / place)
    for place, rule in {
        ".": "name a file",
        "a": r"end in .png or .jpg, got .*a; try .*a.png",
        ".PNG": r"have a name before its ending, got .*\.PNG; try .*output.png",
        "no/a.png": "lie in",
        f"{'n' * 250}.png": r"be writable, got .* \(File name too long\); name",  # of what is renamed to it
        f"{'n' * 300}.png": r"be writable, got .* \(File name too long\); name",
    }.items():
        with pytest.raises(ValueError, match=f"--output must {rule}"):
            check_file("--output", tmp_path / place, [".png", ".jpg"])

    with pytest.raises(ValueError, match=r"--output must be writable, got .* \(File name too long\); name"):
        check_folder("--output", tmp_path / ("n" * 300) / "below")

    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    for check in (
        lambda: check_folder("--output", tmp_path),
        lambda: check_file("--output", tmp_path / "a.png", [".png"]),
    ):
        with pytest.raises(ValueError, match=r"--output must be writable, got .* \(Read-only file system\)"):
            check()


def test_the_user_s_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in [("HOME", "/home/x"), ("XDG_CACHE_HOME", ""), ("OURS", "")]:
        monkeypatch.setenv(variable, value)
    assert user_cache("OURS", "ours") == Path("/home/x/.cache/ours")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert user_cache("OURS", "ours") == Path("/caches/ours")
    monkeypatch.setenv("OURS", "/named")
    assert user_cache("OURS", "ours") == Path("/named")
