"""Does a run on a GPU leave its results, whatever becomes of its parts?"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Part
from benchmarks.harness import encode_profile, report

from .. import children

REPOSITORY = Path(__file__).parents[2]
CONDITIONS = {"device": "cpu", "machine": "a machine", "versions": "python 3", "commit": "abc"}


def part(name: str, code: str, minutes: float = 1.0, needs: str = "") -> Part:
    return Part(name, minutes, "", "{python} -c " + shlex.quote(code), needs, gpu=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, list[dict]]]:
    """The program with parts of a test's own: its exit code, and what is in summary.json."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def main(made: Sequence[Part], *arguments: str) -> tuple[int, list[dict]]:
        monkeypatch.setattr(gpu, "PARTS", made)
        monkeypatch.setattr(gpu, "machine", lambda: CONDITIONS)
        code = gpu.main([*arguments, "--output", str(tmp_path / "out")])
        return code, gpu.read(tmp_path / "out")

    yield main
    for number, handler in previous.items():
        signal.signal(number, handler)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


# A child that ignores Ctrl-C as its parent does.
STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
print("before the end", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_the_limit_ends_children_and_keeps_the_output(tmp_path: Path):
    log, pid = tmp_path / "logs" / "stubborn.log", tmp_path / "pid"
    start = time.monotonic()
    code, cut_off = gpu.run([sys.executable, "-c", STUBBORN, str(pid)], log, limit_s=1.0, grace_s=0.3)
    assert cut_off
    assert code == -signal.SIGKILL
    assert 1.3 <= time.monotonic() - start < 4
    assert wait_for(lambda: not is_alive(int(pid.read_text())))
    assert "before the end" in log.read_text()
    assert "cut off after 1 s" in log.read_text()


def test_a_command_may_store_what_it_has_when_its_time_is_over(tmp_path: Path):
    code = "import time\ntry:\n  time.sleep(60)\nexcept KeyboardInterrupt:\n  print('stored')"
    start = time.monotonic()
    with children.default_signals():
        ending = gpu.run([sys.executable, "-c", code], tmp_path / "log", limit_s=1, grace_s=10)
    assert ending == (0, True)
    assert time.monotonic() - start < 5
    assert "stored" in (tmp_path / "log").read_text()


def test_a_failing_part_does_not_stop_the_next(run, capsys: pytest.CaptureFixture):
    code, entries = run([part("failing", "print('it is broken'); raise SystemExit(3)"), part("after", "print('fine')")])
    assert code == 1
    assert [(entry["part"], entry["outcome"], entry["exit_code"]) for entry in entries] == [
        ("failing", "failed", 3),
        ("after", "ok", 0),
    ]
    assert all(entry.items() >= CONDITIONS.items() for entry in entries)
    assert shlex.split(entries[1]["command"]) == [sys.executable, "-c", "print('fine')"]
    assert entries[1]["said"] == "fine"
    output = capsys.readouterr().out
    assert "it is broken" in output
    assert output.count("failing    ") == 2  # the table stands after every part


def test_what_a_part_starts_finds_the_repository(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "carried"))
    code = "import os, pathlib; print(os.environ['PYTHONPATH'], pathlib.Path.cwd())"
    _, entries = run(
        [part("some", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], cwd='/')")]
    )
    log = (tmp_path / "out" / "some.log").read_text()
    assert entries[0]["outcome"] == "ok"
    assert log.endswith(f"{REPOSITORY}{os.pathsep}{tmp_path / 'carried'} /\n")


def test_what_is_missing_is_a_reason(run):
    program = Part("program", 1, "", "no-such-program", gpu=False)
    code, entries = run([Part("gpu", 1, "", "{python}"), part("package", "", needs="no_such_package"), program])
    assert code == 0
    assert [(entry["part"], entry["outcome"], entry["reason"]) for entry in entries] == [
        ("gpu", "skipped", "needs an NVIDIA GPU"),
        ("package", "skipped", "not installed: no_such_package"),
        ("program", "skipped", "no program no-such-program on the PATH"),
    ]


def test_another_call_goes_on_where_the_last_one_stopped(run, tmp_path: Path):
    count = tmp_path / "count"
    counting = (
        f"import pathlib; p = pathlib.Path({str(count)!r}); p.write_text(p.read_text() + '.' if p.exists() else '.')"
    )
    made = [part("quick", counting), part("long", counting, minutes=3)]
    code, entries = run(made, "--within", "0.8")
    assert [entry["outcome"] for entry in entries] == ["ok", "no time left"]
    assert (code, count.read_text()) == (1, ".")
    code, entries = run(made)
    assert [entry["outcome"] for entry in entries] == ["ok", "ok"]
    assert (code, count.read_text()) == (0, "..")
    run(made)
    assert count.read_text() == ".."
    run(made, "quick")
    assert count.read_text() == "..."


def test_a_part_is_cut_off_at_its_limit_and_tried_again_if_that_was_the_limit_of_all(
    run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu, "GRACE_S", 0.1)
    made = [part("long", "import time; time.sleep(60)", minutes=0.035), part("next", "print('its turn')")]
    code, entries = run(made)
    assert code == 1
    assert [(entry["outcome"], entry["reason"]) for entry in entries[:1]] == [("cut off", "cut off after 2 s")]
    assert (entries[1]["outcome"], entries[1]["said"]) == ("ok", "its turn")
    code, entries = run(made, "long", "--within", "0.03")
    assert (code, entries[0]["outcome"]) == (1, "no time left")
    assert entries[0]["reason"] == "cut off after 2 s"


def test_the_summary_is_whole_after_kill_9(tmp_path: Path):
    begun = tmp_path / "begun"
    sleeping = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(5)"
    driver = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from benchmarks import gpu
from benchmarks.gpu import Part
gpu.PARTS = {[part("first", "print('done')"), part("second", sleeping), part("third", "")]!r}
gpu.machine = lambda: {CONDITIONS!r}
gpu.main(["--output", {str(tmp_path)!r}, "--pack", {str(tmp_path / "packed.tar.gz")!r}])
"""
    with children.started([sys.executable, "-c", driver], stdout=subprocess.DEVNULL) as process:
        assert wait_for(begun.exists, 20)
        process.kill()
        process.wait()
    entries = json.loads((tmp_path / "summary.json").read_text())
    assert [(entry["part"], entry["outcome"]) for entry in entries] == [("first", "ok"), ("second", "not ended")]
    assert all(entry["commit"] == "abc" and entry["command"] and entry["log"] for entry in entries)
    assert (tmp_path / "first.log").read_text().endswith("done\n")
    with tarfile.open(tmp_path / "packed.tar.gz") as packed:  # the one after the first part
        assert {"packed/summary.json", "packed/first.log"} <= set(packed.getnames())


def test_parts_are_named_alone_or_together_and_an_unknown_one_is_an_error(run, capsys: pytest.CaptureFixture):
    made = [part("one", ""), part("one_more", ""), part("two", "")]
    code, entries = run(made, "one", "three")
    assert (code, entries) == (2, [])
    assert capsys.readouterr().err == "error: PART must be one of one, one_more, two, got three\n"
    assert [entry["part"] for entry in run(made, "one")[1]] == ["one", "one_more"]


def test_places_that_cannot_be_written_to_are_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").write_text("")
    assert gpu.main(["--output", str(tmp_path / "file")]) == 2
    assert gpu.main(["--output", str(tmp_path), "--pack", str(tmp_path / "a.zip")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: --output must be a folder, got ")
    assert second.startswith("error: --pack must end in .tar.gz or .tgz, got ")


def test_the_profile_checks_its_options_first(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").write_text("")
    for option, value, rule in (("output", tmp_path / "file", "be a folder"), ("batch", 0, "be at least 1")):
        assert encode_profile.main([f"--{option}", str(value)]) == 2
        assert capsys.readouterr().err.startswith(f"error: --{option} must {rule}, got {value}")
    for side in (0, 12):
        assert encode_profile.main(["--output", str(tmp_path), "--side", str(side)]) == 2
        assert capsys.readouterr().err == f"error: --side must be a multiple of 8 and at least 8, got {side}\n"


def test_minutes_are_above_0(capsys: pytest.CaptureFixture):
    for option in ("--minutes", "--within"):
        for value in ("0", "-1", "nan", "inf", "ten"):
            with pytest.raises(SystemExit, match="2"):
                gpu.main(["--list", option, value])
            assert capsys.readouterr().err.endswith(f"{option}: must be a finite number above 0, got {value}\n")
    assert gpu.main(["--list", "--minutes", "0.5"]) == 0


def test_the_archive_has_what_is_small(tmp_path: Path):
    folder, archive = tmp_path / "gpu", tmp_path / "gpu" / "all.tar.gz"
    for name, size in {"a.log": 10, "results/b.json": 20, "trace.json": 5 * 2**20}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    for _ in range(2):  # the second time it stands in the folder itself
        gpu.pack(folder, archive)
    with tarfile.open(archive) as packed:
        assert sorted(packed.getnames()) == ["all/a.log", "all/results/b.json"]
        assert packed.extractfile("all/results/b.json").read() == (folder / "results/b.json").read_bytes()
    assert not list(folder.glob(".*"))


def test_tables_are_stored_among_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "recorded")
    table = report.Table("some", "Some", {}, [report.Column("row", "row")], ["one", "two"])
    whole = report.Measured(table, {"one": {"row": "one"}, "two": {"row": "two"}})
    document = report.document(whole, {"device": "nvidia-x"})
    report.write(document, tmp_path / "run" / "results")
    assert gpu.main(["--store", str(tmp_path / "run")]) == 0
    stored = tmp_path / "recorded" / "some-nvidia-x.json"
    assert json.loads(stored.read_text()) == document
    document["rows"].pop()
    report.write(document, tmp_path / "cut" / "results")
    gpu.main(["--store", str(tmp_path / "cut")])
    assert len(json.loads(stored.read_text())["rows"]) == 2
    assert "was kept" in capsys.readouterr().out
    capsys.readouterr()
    assert gpu.main(["--store", str(tmp_path)]) == 2
    monkeypatch.setattr(report, "RESULTS", stored)
    assert gpu.main(["--store", str(tmp_path / "run")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: --store must name a folder with results/*.json, got {tmp_path}"
    assert second.startswith(f"error: benchmarks/results must be a folder, got {stored}")


def test_parts_fit_their_limits_and_leave_out_no_benchmark(tmp_path: Path):
    assert all(part.minutes < 10 for part in gpu.PARTS)
    words = [word for part in gpu.PARTS for word in part.words(tmp_path)]
    on_a_gpu = {path.name for path in (REPOSITORY / "benchmarks").glob("bench_*.py")} - {"bench_runtimes.py"}
    assert {Path(word).name for word in words if "bench_" in word} == on_a_gpu
    for part in (replace(part, minutes=min(part.minutes, limit)) for part in gpu.PARTS for limit in (10, 2.0)):
        words = part.words(tmp_path)
        if "--minutes" in words:
            own = float(words[words.index("--minutes") + 1])
            assert own == part.minutes - (0.5 if "--benchmark-only" in words else 1.5)


def test_the_first_thirty_minutes_are_three_calls_of_ten():
    calls, left = [[]], 9.5
    for part in gpu.PARTS[: [part.name for part in gpu.PARTS].index("train_litevae")]:
        if part.minutes > left:
            calls, left = [*calls, []], 9.5
        calls[-1].append(part.name)
        left -= part.minutes
    assert calls == [
        ["machine", "tests", "tests_huge"],
        ["operators", "profile"],
        ["table3", "sanitizer_memcheck"],
    ]


def test_wheels_to_bring_are_named(run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    assert gpu.missing_wheels() == ""
    monkeypatch.setattr(gpu, "WHEELS", {"no_such_package": "no-such-package", "torch": "torch"})
    run([part("some", "")])
    output = capsys.readouterr().out
    assert output.startswith("not installed: no_such_package. ")
    assert "-d wheels no-such-package\n" in output


def test_a_part_is_told_how_long_it_may_really_take(run):
    made = [Part("some", 5, "", "{python} -c 'import sys; print(sys.argv[1])' {minutes}", gpu=False)]
    _, entries = run(made, "--within", "3")
    assert 2 < float(entries[0]["said"]) < 2.5


def test_the_training_runs_are_configs_that_the_program_takes():
    pytest.importorskip("omegaconf")
    from benchmarks import comparison
    from litevae.runs.recipes import load_config
    from litevae.training.config import RunConfig

    precisions = {}
    for part in (part for part in gpu.PARTS if "benchmarks.comparison" in part.command):
        words = part.words(Path("out"))
        row, overrides = words[words.index("--only") + 1], words[words.index("full") + 1 :]
        common = [*comparison.SIZES["full"], *comparison.FOR_MINUTES, *overrides]
        config = load_config(RunConfig, "comparison", [*comparison.ROWS[row], *common])
        precisions[part.name] = config.train.mixed_precision
    assert precisions == {"train_litevae": "bf16", "train_sd_vae": "bf16", "train_fp16": "fp16"}


def operation(name: str, start: float, duration: float, number: int) -> dict:
    arguments = {"External id": number}
    return {"ph": "X", "cat": "cpu_op", "name": name, "ts": start, "dur": duration, "tid": 1, "args": arguments}


def launch(name: str, duration: float, number: int, registers: int) -> dict:
    arguments = {"External id": number, "registers per thread": registers, "shared memory": 64}
    return {"ph": "X", "cat": "kernel", "name": name, "ts": 0.0, "dur": duration, "tid": 7, "args": arguments}


def test_kernels_belong_to_the_outermost_operation():
    operations = [
        operation("aten::conv2d", 0, 10, 1),
        operation("aten::cudnn_convolution", 2, 3, 2),
        operation("aten::add_", 6, 3, 3),  # the bias, inside of conv2d
        operation("aten::add_", 10, 2, 4),
    ]
    launches = [launch("gemm", 8, 2, 128), launch("gemm", 4, 2, 96), launch("add", 2, 3, 16), launch("add", 6, 4, 32)]
    found = encode_profile.kernels([*operations, *launches, {"ph": "M"}])
    assert [kernel.operation for kernel in found] == ["aten::conv2d"] * 3 + ["aten::add_"]
    rows = encode_profile.by_name(found, calls=2)
    assert [(row["row"], row["launches"], row["time_us"], row["registers"]) for row in rows] == [
        ("gemm (conv2d)", 1.0, 6.0, 128),
        ("add (add_)", 0.5, 3.0, 32),
        ("add (conv2d)", 0.5, 1.0, 16),
    ]
    assert [row["share"] for row in rows] == [60, 30, 10]
    moved = {"convolutions": 7000.0, "sums": 6000.0}
    kinds = encode_profile.by_kind(found, calls=2, moved=moved, copy_gb_per_s=4.0)
    assert [(row["row"], row["gb_per_s"], row["share_of_copy"]) for row in kinds] == [
        ("convolutions", 1.0, 25.0),
        ("sums", 2.0, 50.0),
    ]
    assert [kernel.name for kernel in encode_profile.kernels(operations)] == ["aten::conv2d", "aten::add_"]
