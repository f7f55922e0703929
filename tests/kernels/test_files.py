"""Does a replacement leave the old or the new, never half of either?"""

import os
from pathlib import Path

import pytest

from litevae_kernels.files import remove_leftovers, replacing


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


def test_folder_killed_between_two_names_is_not_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old folder goes aside whole before the new one takes its name."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if target == path:
            raise KeyboardInterrupt
        replace(source, target)

    def save() -> None:
        with replacing(path) as temporary:
            temporary.mkdir()

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save()
    assert not path.exists()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


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
