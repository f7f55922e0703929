"""Do rows become the right Markdown and JSON, and is nothing stored lost?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import report
from benchmarks.harness.report import Column, Measured, Results, Table

TABLE = Table(
    name="speed",
    title="Speed",
    settings={"batch": 2},
    columns=[Column("row", "operation"), Column("time_ms", "ms", ".2f"), Column("count", "n", "d")],
    order=["slow", "fast", "absent", "elsewhere", "also absent"],
    notes=["A note."],
)


CONDITIONS = {"command": "pytest -k speed", "device": "cpu", "commit": "abc"}


def measured(**times_ms: float | None) -> Measured:
    results = Results()
    for label, time_ms in times_ms.items():
        results.add(TABLE, label, {"time_ms": time_ms, "count": 1234})
    for label in ("absent", "also absent"):
        results.skip(TABLE, label, "it is not installed")
    results.skip(TABLE, "elsewhere", "no GPU")
    return results.tables["speed"]


def document(**times_ms: float | None) -> dict[str, Any]:
    return report.document(measured(**times_ms), CONDITIONS)


def test_markdown_of_known_rows():
    expected = """\
# Speed

| operation |    ms |    n |
| --------- | ----: | ---: |
| slow      | 12.35 | 1234 |
| fast      |     - | 1234 |

- batch: 2
- command: `pytest -k speed`
- device: cpu
- commit: abc
- not measured (it is not installed): absent; also absent
- not measured (no GPU): elsewhere

- A note.
"""
    assert report.markdown(document(fast=None, slow=12.3456)) == expected  # in the table's order, not the run's


@pytest.mark.parametrize(("rows", "named"), [(4, "0; 1; 2; 3"), (5, "0; 1; 2; and 2 more"), (9, "0; 1; 2; and 6 more")])
def test_markdown_names_the_first_of_many_unmeasured_rows(rows: int, named: str):
    whole = {**document(fast=1.0), "skipped": dict.fromkeys(map(str, range(rows)), "no GPU")}
    assert f"- not measured (no GPU): {named}\n" in report.markdown(whole)


def test_files_hold_the_same_document(tmp_path: Path):
    table = document(fast=1.0)
    message = report.write(table, tmp_path / "new")
    path = tmp_path / "new" / "speed-cpu.json"
    assert message.startswith(f"wrote {path}")
    assert json.loads(path.read_text()) == table
    assert path.with_suffix(".md").read_text() == report.markdown(json.loads(path.read_text()))
    assert sorted(file.name for file in path.parent.iterdir()) == ["speed-cpu.json", "speed-cpu.md"]


def test_fewer_rows_do_not_replace_more(tmp_path: Path):
    report.write(document(fast=1.0, slow=2.0), tmp_path)
    path = tmp_path / "speed-cpu.json"
    before = path.read_text(), path.with_suffix(".md").read_text()
    message = report.write(document(fast=3.0), tmp_path)
    assert "was kept: this run has no row for slow" in message
    assert (path.read_text(), path.with_suffix(".md").read_text()) == before
    report.write(document(fast=3.0, slow=4.0), tmp_path)
    assert [row["time_ms"] for row in json.loads(path.read_text())["rows"]] == [4.0, 3.0]


def test_fewer_columns_of_a_row_do_not_replace_more(tmp_path: Path):
    report.write(document(fast=1.0, slow=None), tmp_path)
    assert report.write(document(fast=None, slow=2.0), tmp_path).endswith(
        "speed-cpu.json was kept: this run has no time_ms for fast (--results FOLDER stores it elsewhere)"
    )
    report.write(document(fast=3.0, slow=None), tmp_path)
    assert json.loads((tmp_path / "speed-cpu.json").read_text())["rows"][1]["time_ms"] == 3.0


def test_a_rival_that_is_no_row_is_named_with_its_reason():
    results = measured(fast=1.0)
    results.skipped["a rival"] = "too slow"
    assert "- not measured (too slow): a rival\n" in report.markdown(report.document(results, CONDITIONS))


def test_a_stored_row_that_the_table_no_longer_knows_does_not_keep_it(tmp_path: Path):
    older = document(fast=1.0)
    older["rows"].append({"row": "renamed since", "time_ms": 2.0, "count": 1234})
    report.write(older, tmp_path)
    assert report.write(document(fast=3.0), tmp_path).startswith("wrote")
    assert [row["row"] for row in json.loads((tmp_path / "speed-cpu.json").read_text())["rows"]] == ["fast"]


def test_conditions_name_what_a_number_depends_on():
    conditions = report.conditions("pytest -x")
    assert conditions["command"] == "pytest -x"
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown \(no git repository\)", conditions["commit"])
    for name in ("python 3.", "torch ", "triton ", "litevae ", "diffusers ", "ptwt "):
        assert name in conditions["versions"]
    assert re.search(r"\d+ cores, \d+ threads", conditions["machine"])
    assert re.fullmatch(r"[a-z0-9-]+", conditions["device"])


def test_the_commit_of_a_copy_without_a_repository_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "commit", lambda: None)
    monkeypatch.delenv("LITEVAE_COMMIT", raising=False)
    assert report.conditions("pytest")["commit"] == "unknown (no git repository)"
    monkeypatch.setenv("LITEVAE_COMMIT", "abc")
    assert report.conditions("pytest")["commit"] == "abc"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "PACKAGES", ("torch", "no-such-package"))
    assert report.conditions("pytest")["versions"].endswith("no-such-package not installed")
