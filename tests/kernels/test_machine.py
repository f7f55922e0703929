"""Is a commit named with "+changes" when the source that ran differs from it, and only then?"""

import re
import subprocess
from pathlib import Path

import pytest

from litevae_kernels import machine

FILES = ("litevae_kernels/machine.py", "litevae/train.py", "benchmarks/results/speed.json", "tests/test_one.py")


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of the project's names, not in a repository yet."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / FILES[0]))
    return tmp_path


def test_only_tracked_files_of_the_source_are_changes(copy: Path) -> None:
    git(copy, "init")
    git(copy, "add", ".")
    git(copy, "commit", "-m", "all")
    for name in ("litevae/notes.txt", "runs/quickstart/config.yaml", *FILES[2:]):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("after")
    assert re.fullmatch(r"[0-9a-f]{40}", machine.commit() or "")
    (copy / "litevae" / "train.py").write_text("after")
    assert re.fullmatch(r"[0-9a-f]{40}\+changes", machine.commit() or "")


def test_a_copy_without_a_repository_of_its_own_has_no_commit(copy: Path) -> None:
    assert machine.commit() is None
    git(copy, "init")
    git(copy, "commit", "--allow-empty", "-m", "another project, with this package installed in its folder")
    assert machine.commit() is None
