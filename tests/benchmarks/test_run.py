"""Does `pytest benchmarks --benchmark-only` collect, measure, print and store?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run_pytest(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_one_row_is_measured_printed_and_stored(tmp_path: Path):
    pytest.importorskip("pytest_benchmark")
    row = "copy of the weight"
    output = run_pytest("benchmarks", "--benchmark-only", "-k", "copy and weight", "--results", str(tmp_path))
    (path,) = tmp_path.glob("*.json")
    table = json.loads(path.read_text())
    assert [measured["row"] for measured in table["rows"]] == [row]
    measured = table["rows"][0]
    assert 0.1 < measured["to_copy"] < 10
    assert measured["gb_per_s"] == pytest.approx(2 * 256 * 256 * 9 * 4 / measured["time_ms"] / 1e6)
    assert table["conditions"]["command"].startswith("pytest ")
    assert path.with_suffix(".md").read_text() in output


def test_only_benchmarks_are_collected():
    output = run_pytest("benchmarks", "--collect-only", "-q")
    files = {line.partition("::")[0] for line in output.splitlines() if "::" in line}
    assert files == {f"benchmarks/bench_{name}.py" for name in ("haar_dwt2d", "smc_conv2d", "table3_encoders")}
