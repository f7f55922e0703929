"""Does `pytest benchmarks --benchmark-only` collect, measure, print and store?"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest

from .. import children

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"


def run_pytest(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    finished = children.run(command, timeout=300, cwd=REPOSITORY)
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
    weight_bytes = 4 * math.prod(map(int, table["settings"]["weight"].split("x")))
    assert measured["gb_per_s"] == pytest.approx(2 * weight_bytes / measured["time_ms"] / 1e6)
    assert measured["share_of_copy"] == pytest.approx(100 / measured["to_copy"])
    assert table["conditions"]["command"].startswith("pytest ")
    assert path.with_suffix(".md").read_text() in output


@pytest.mark.slow
def test_quick_prints_and_stores_nothing():
    pytest.importorskip("pytest_benchmark")
    stored = {path: path.read_bytes() for path in RESULTS.iterdir()}
    output = run_pytest("benchmarks", "--benchmark-only", "--quick", "-k", "copy and weight")
    assert re.search(r"^\| copy of the weight .* 2 \|$", output, re.MULTILINE)  # rounds
    assert "not stored, because of --quick" in output
    assert {path: path.read_bytes() for path in RESULTS.iterdir()} == stored


def test_only_benchmarks_are_collected():
    output = run_pytest("benchmarks", "--collect-only", "-q")
    files = {line.partition("::")[0] for line in output.splitlines() if "::" in line}
    operators = ("group_norm_silu", "haar_dwt2d", "host_cost", "smc_conv2d")
    names = (*operators, "table3_encoders", "decoders", "training_step", "growth", "memory")
    assert files == {f"benchmarks/bench_{name}.py" for name in names}
