"""Does `pytest benchmarks --benchmark-only` collect, measure, print and store?"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import conftest
from litevae_kernels import backends

from .. import children

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"
# pytest-benchmark measures nothing in a worker of pytest-xdist, nor in what thinks that it is one.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
SMC = "benchmarks/bench_smc_conv2d.py"  # one file is collected faster than all


def run_pytest(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    finished = children.run(command, timeout=300, cwd=REPOSITORY, env={**ENVIRONMENT, **environment})
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_places_that_cannot_be_written_to_are_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that was named, and the one where tables go by themselves."""
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(conftest, "RESULTS", file)
    for options in ({"results": file, "quick": True}, {"results": None, "quick": False}):
        config = SimpleNamespace(getoption=options.get, option=SimpleNamespace(collectonly=False))
        with pytest.raises(pytest.UsageError, match=f"--results must be a folder, got {file}"):
            conftest.pytest_configure(config)


def test_one_row_is_measured_printed_and_stored(tmp_path: Path):
    pytest.importorskip("pytest_benchmark")
    row = "copy of the weight"
    output = run_pytest(SMC, "--benchmark-only", "-k", "copy and weight", "--results", str(tmp_path))
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
    assert f"row 1 of 1, about 0:01 left, smc_weight: {row}" in output


@pytest.mark.slow
def test_quick_prints_and_stores_nothing():
    pytest.importorskip("pytest_benchmark")
    stored = {path: path.read_bytes() for path in RESULTS.iterdir()}
    output = run_pytest(SMC, "--benchmark-only", "--quick", "-k", "copy and weight")
    assert re.search(r"^\| copy of the weight .* 1 \|$", output, re.MULTILINE)  # rounds
    assert "not stored, because of --quick" in output
    assert {path: path.read_bytes() for path in RESULTS.iterdir()} == stored


def test_a_run_that_is_stopped_has_stored_the_tables_it_finished(tmp_path: Path):
    pytest.importorskip("pytest_benchmark")
    if not backends()["cpu"].available:
        pytest.skip(backends()["cpu"].reason)
    files = ["benchmarks/bench_host_cost.py", "benchmarks/bench_smc_conv2d.py"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files, "--benchmark-only", "-q"]
    rows = ["-k", "host_cost and smc_weight or test_smc_conv2d", "--minutes", "60"]
    stored = tmp_path / "host_cost-cpu.json"
    options = {"cwd": REPOSITORY, "env": {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}, "stdout": subprocess.PIPE}
    with children.started([*command, *rows, "--results", str(tmp_path)], text=True, **options) as process:
        end = time.monotonic() + 120
        while not stored.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        table = json.loads(stored.read_text())
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert [row["row"] for row in table["rows"]] == ["smc_weight, cpu tensors, cpu"]
    assert f"wrote {stored}" in output


@pytest.mark.slow
def test_rows_that_a_cpu_only_emulates_are_left_out():
    pytest.importorskip("pytest_benchmark")
    without_units = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    check = "import torch; print(torch.ops.mkldnn._is_mkldnn_bf16_supported())"
    said = children.run([sys.executable, "-c", check], timeout=120, env={**ENVIRONMENT, **without_units})
    if "False" not in said.stdout:
        pytest.skip("oneDNN has bfloat16 here, whatever ONEDNN_MAX_CPU_ISA says")
    chosen = ("benchmarks", "--benchmark-only", "--quick", "-k", "bfloat16 and (table3 or decoders or training)")
    output = run_pytest(*chosen, "-q", CUDA_VISIBLE_DEVICES="", **without_units)
    assert output.count("this CPU only emulates bfloat16; --all-rows measures it") >= 3
    assert "4 skipped" in output


def test_only_benchmarks_are_collected():
    output = run_pytest("benchmarks", "--collect-only", "-q")
    files = {line.partition("::")[0] for line in output.splitlines() if "::" in line}
    operators = ("group_norm_silu", "haar_dwt2d", "host_cost", "smc_conv2d")
    names = (*operators, "table3_encoders", "decoders", "training_step", "growth", "memory", "evaluation")
    assert files == {f"benchmarks/bench_{name}.py" for name in names}
