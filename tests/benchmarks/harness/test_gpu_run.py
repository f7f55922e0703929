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
from pathlib import Path

import pytest

from benchmarks.harness import report
from benchmarks.harness.gpu_run import __main__ as program
from benchmarks.harness.gpu_run import encode_profile, limited, summary, training
from benchmarks.harness.gpu_run.parts import NO_GPU, Part, Step, parts

from ... import children

REPOSITORY = Path(__file__).parents[3]
CONDITIONS = {"device": "cpu", "machine": "a machine", "versions": "python 3", "commit": "abc"}


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def part(name: str, *codes: str, minutes: float = 1.0, at_least: float = 0.0) -> Part:
    steps = [Step(f"step {number}", python(code), python(code)) for number, code in enumerate(codes)]
    return Part(name, minutes, at_least, "", steps)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, list[dict]]]:
    """The program with parts of a test's own: its exit code, and what is in summary.json."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def main(made: Sequence[Part], *arguments: str) -> tuple[int, list[dict]]:
        monkeypatch.setattr(program, "parts", lambda *_: made)
        monkeypatch.setattr(program, "_conditions", lambda: CONDITIONS)
        code = program.main([*arguments, "--output", str(tmp_path / "out")])
        return code, summary.read(tmp_path / "out")

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


# A child that leaves the group, and that ignores Ctrl-C as its parent does.
STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
print("before the end", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_the_limit_ends_children_and_keeps_the_output(tmp_path: Path):
    log, pid = tmp_path / "logs" / "stubborn.log", tmp_path / "pid"
    ending = limited.run([*python(STUBBORN), str(pid)], log, limit_s=1.0, grace_s=0.3)
    assert ending.cut_off
    assert ending.code == -signal.SIGKILL
    assert 1.3 <= ending.seconds < 4
    assert wait_for(lambda: not is_alive(int(pid.read_text())))
    assert "before the end" in log.read_text()
    assert "cut off after 1 s" in log.read_text()


def test_a_command_may_store_what_it_has_when_its_time_is_over(tmp_path: Path):
    code = "import time\ntry:\n  time.sleep(60)\nexcept KeyboardInterrupt:\n  print('stored')"
    ending = limited.run(python(code), tmp_path / "log", limit_s=0.5, grace_s=10)
    assert (ending.code, ending.cut_off) == (0, True)
    assert ending.seconds < 5
    assert "stored" in (tmp_path / "log").read_text()


def test_a_failing_part_does_not_stop_the_next(run, capsys: pytest.CaptureFixture):
    failing = part("failing", "print('it is broken'); raise SystemExit(3)", "print('second step')")
    code, entries = run([failing, part("after", "print('fine')")])
    assert code == 1
    assert [(entry["part"], entry["outcome"], entry["exit_code"]) for entry in entries] == [
        ("failing", "failed", 3),
        ("failing", "ok", 0),
        ("after", "ok", 0),
    ]
    assert all(entry.items() >= CONDITIONS.items() for entry in entries)
    assert shlex.split(entries[2]["command"]) == list(python("print('fine')"))
    assert entries[2]["said"] == "fine"
    output = capsys.readouterr().out
    assert "it is broken" in output
    assert output.count("failing: step 0") == 2  # the table stands after every part


def test_what_a_part_starts_finds_the_repository(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "carried"))
    code = "import os, pathlib; print(os.environ['PYTHONPATH'], pathlib.Path.cwd())"
    _, entries = run(
        [part("some", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], cwd='/')")]
    )
    log = (tmp_path / "out" / "some-step-0.log").read_text()
    assert entries[0]["outcome"] == "ok"
    assert log.endswith(f"{REPOSITORY}{os.pathsep}{tmp_path / 'carried'} /\n")


def test_a_program_that_is_missing_is_a_reason(run):
    steps = [Step("gpu only", python("")), Step("package", python(""), python(""), packages=["no_such_package"])]
    code, entries = run([Part("some", 1, 0, "", [*steps, Step("program", ("no-such-program",), ("no-such-program",))])])
    assert code == 0
    reasons = [NO_GPU, "not installed: no_such_package", "no program no-such-program on the PATH"]
    assert [(entry["outcome"], entry["reason"]) for entry in entries] == [("skipped", reason) for reason in reasons]


def test_another_call_goes_on_where_the_last_one_stopped(run, tmp_path: Path):
    count = tmp_path / "count"
    counting = (
        f"import pathlib; p = pathlib.Path({str(count)!r}); p.write_text(p.read_text() + '.' if p.exists() else '.')"
    )
    made = [part("quick", counting), part("long", counting, at_least=0.5)]
    code, entries = run(made, "--within", "0.4")
    assert [entry["outcome"] for entry in entries] == ["ok", "no time left"]
    assert (code, count.read_text()) == (1, ".")
    code, entries = run(made)
    assert [entry["outcome"] for entry in entries] == ["ok", "ok"]
    assert (code, count.read_text()) == (0, "..")
    run(made)
    assert count.read_text() == ".."
    run(made, "quick")
    assert count.read_text() == "..."


def test_steps_share_the_time_of_their_part(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program, "GRACE_S", 0.1)
    made = [part("some", "import time; time.sleep(60)", "print('its turn')", minutes=0.15)]
    monkeypatch.setattr(program, "KEPT", 0.8)
    code, entries = run(made)
    assert code == 1
    assert [(entry["outcome"], entry["said"]) for entry in entries][1] == ("ok", "its turn")
    assert entries[0]["outcome"] == "cut off"
    assert entries[0]["reason"] == "cut off after 2 s"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_the_summary_is_whole_after_kill_9_and_nothing_runs_on(tmp_path: Path):
    pid = tmp_path / "pid"
    sleeping = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    driver = f"""
import sys
sys.path[:0] = [{str(REPOSITORY)!r}, {str(Path(__file__).parent)!r}]
from benchmarks.harness.gpu_run import __main__ as program
from benchmarks.harness.gpu_run.parts import Part, Step
def part(name, code):
    return Part(name, 1, 0, "", [Step("", (sys.executable, "-c", code), (sys.executable, "-c", code))])
program.parts = lambda *_: [part("first", "print('done')"), part("second", {sleeping!r}), part("third", "")]
program._conditions = lambda: {CONDITIONS!r}
program.main(["--output", {str(tmp_path)!r}, "--pack", {str(tmp_path / "packed.tar.gz")!r}])
"""
    with children.started(python(driver), stdout=subprocess.DEVNULL) as process:
        assert wait_for(lambda: pid.exists() and pid.read_text() != "", 20)
        process.kill()
        assert wait_for(lambda: not is_alive(int(pid.read_text())))
    entries = json.loads((tmp_path / "summary.json").read_text())
    assert [(entry["part"], entry["outcome"]) for entry in entries] == [("first", "ok"), ("second", "not ended")]
    assert all(entry["commit"] == "abc" and entry["command"] and entry["log"] for entry in entries)
    assert (tmp_path / "first.log").read_text().endswith("done\n")
    assert not summary.Summary(tmp_path, CONDITIONS).has_ended("second")
    with tarfile.open(tmp_path / "packed.tar.gz") as packed:  # the one after the first part
        assert {"packed/summary.json", "packed/first.log"} <= set(packed.getnames())


def test_an_unknown_part_is_named(run, capsys: pytest.CaptureFixture):
    code, entries = run([part("one", ""), part("two", "")], "one", "three")
    assert (code, entries) == (2, [])
    assert capsys.readouterr().err == "error: PART must be one of one, two, got three\n"


def test_the_archive_has_what_is_small(tmp_path: Path):
    folder, archive = tmp_path / "gpu", tmp_path / "gpu" / "all.tar.gz"
    for name, size in {
        "a.log": 10,
        "results/b.json": 20,
        "runs/x/checkpoints/step-1.pt": 5,
        "trace.json": 5 * 2**20,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    for _ in range(2):  # the second time it stands in the folder itself
        assert summary.pack(folder, archive) == ["trace.json (5 MiB)"]
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
    assert program.main(["--store", str(tmp_path / "run")]) == 0
    stored = tmp_path / "recorded" / "some-nvidia-x.json"
    assert json.loads(stored.read_text()) == document
    document["rows"].pop()
    report.write(document, tmp_path / "cut" / "results")
    program.main(["--store", str(tmp_path / "cut")])
    assert len(json.loads(stored.read_text())["rows"]) == 2
    assert "was kept" in capsys.readouterr().out
    assert program.main(["--store", str(tmp_path)]) == 2


def test_parts_fit_their_limits_and_leave_out_no_benchmark(tmp_path: Path):
    made = parts(tmp_path)
    assert all(part.at_least <= part.minutes < 10 for part in made)
    words = [word for part in made for step in part.steps for word in step.command]
    assert {Path(word).name for word in words if "bench_" in word} == {
        path.name for path in (REPOSITORY / "benchmarks").glob("bench_*.py")
    }
    for limit in (None, 2.0):
        for part in parts(tmp_path, limit):
            for step in (step for step in part.steps if "--benchmark-only" in step.command):
                assert float(step.command[step.command.index("--minutes") + 1]) == part.minutes - 0.5
                assert "--quick" in step.chosen(gpu=False)
    assert {part.minutes for part in parts(tmp_path, minutes=1.0)} == {1.0}


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


def test_a_training_run_is_read_stage_by_stage(tmp_path: Path):
    def trained(step: int, speed: float, loss: float | None = 1.0) -> dict:
        return {"kind": "train", "step": step, "images_per_second": speed, "loss": {"l1": loss}, "skipped_steps": 2}

    lines = [
        {"kind": "evaluation", "step": 0, "psnr": 8.0, "ssim": 0.1},
        *(trained(step, speed) for step, speed in ((10, 1.0), (20, 50.0), (30, 70.0))),
        {"kind": "resume", "step": 30},
        *(trained(step, speed) for step, speed in ((40, 1.0), (50, 20.0))),
        {"kind": "resume", "step": 50},
        {"kind": "evaluation", "step": 50, "psnr": 20.0, "ssim": 0.5},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = training.row(tmp_path, small=False)
    assert row["steps"] == 50
    assert row["images_k"] == pytest.approx((30 * 32 + 20 * 16) / 1000)
    assert (row["images_per_second_128"], row["images_per_second_256"]) == (60.0, 20.0)
    assert (row["psnr"], row["ssim"], row["lpips_random_trunk"]) == (20.0, 0.5, None)
    assert (row["skipped_steps"], row["finite"]) == (2, "yes")
    assert row["curve"] == [[0, 8.0], [50, 20.0]]
    path.write_text(json.dumps(trained(10, 1.0, None)) + "\n")
    assert training.row(tmp_path, small=False)["finite"] == "no"


def test_the_training_runs_are_configs_that_the_program_takes():
    pytest.importorskip("omegaconf")
    from litevae.runs.recipes import load_config
    from litevae.training.config import RunConfig

    for name, own in training.RUNS.items():
        for small in (False, True):
            extra = training.SMALL if small else []
            for side, stage in training.stages(small).items():
                config = load_config(RunConfig, training.RECIPE, [*training.COMMON, *own, *extra, *stage])
                assert config.data.crop_size == (side // 4 if small else side)
                assert config.train.mixed_precision == name.rpartition("-")[2]
