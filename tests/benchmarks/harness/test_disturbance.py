"""Is another process seen, and the own work not taken for one?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.harness import disturbance


def stat(ticks: int, parent: int) -> str:
    return f"1 (a (b) c) S {parent} " + "0 " * 9 + f"{ticks} 1 2 3 0 0"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process, a child and a grandchild, 6 + 6 + 106 ticks, and a stranger."""
    processes = {os.getpid(): (0, 1), 11: (0, os.getpid()), 12: (100, 11), 13: (5000, 1)}
    for process, (ticks, parent) in processes.items():
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "stat").write_text(stat(ticks, parent))
    (tmp_path / "stat").write_text("cpu  1000 10 100 70000 900 1 2 5 0 0\ncpu0 0\n")
    monkeypatch.setattr(disturbance, "PROC", tmp_path)
    monkeypatch.setattr(disturbance, "TICKS_A_SECOND", 100)
    return tmp_path


def test_what_others_took_is_all_but_the_own(proc: Path):
    assert disturbance.others_s() == (1000 + 10 + 100 + 1 + 2 + 5 - 6 - 6 - 106) / 100


@pytest.mark.parametrize(("ticks", "said"), [(0, ""), (50, ""), (250, "which took 12% of the cores")])
def test_a_table_says_so(ticks: int, said: str, proc: Path, monkeypatch: pytest.MonkeyPatch):
    now = iter([0.0, 10.0])
    monkeypatch.setattr(disturbance, "monotonic", lambda: next(now))
    monkeypatch.setattr(disturbance.os, "cpu_count", lambda: 2)
    watch = disturbance.Watch()
    (proc / "stat").write_text(f"cpu  {1000 + ticks} 10 100 99000 900 1 2 5 0 0\n")
    sentence = watch.disturbance()
    assert said in sentence
    assert bool(said) == bool(sentence)


def test_without_proc_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(disturbance, "PROC", tmp_path)
    assert disturbance.Watch().disturbance() == ""
