"""Runs the parts one after the other; what each said is on disk before the next begins."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks.harness.gpu_run import limited, summary
from benchmarks.harness.gpu_run.limited import GRACE_S
from benchmarks.harness.gpu_run.parts import Part, Step, parts
from benchmarks.harness.gpu_run.summary import Summary

ROOT = Path(__file__).parents[3]
KEPT = 0.1  # of a part's time, for each step that is still to come
CONDITIONS = "import json; from benchmarks.harness.report import conditions; print(json.dumps(conditions('')))"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 1 if something failed, 130 and 143 after Ctrl-C and SIGTERM."""
    arguments = _parser().parse_args(argv)
    if arguments.store is not None:
        return store(arguments.store)
    output: Path = arguments.output.resolve()
    chosen = parts(output, arguments.minutes)
    by_name = {part.name: part for part in chosen}
    if unknown := [name for name in arguments.parts if name not in by_name]:
        print(f"error: PART must be one of {', '.join(by_name)}, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    if arguments.list:
        print("\n".join(f"{part.name:<14} {part.minutes:>4g} min  {part.about}" for part in chosen))
        return 0
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end = time.monotonic() + 60 * arguments.within
    conditions = _conditions()
    written = Summary(output, conditions)
    todo = [by_name[name] for name in arguments.parts] or [part for part in chosen if not written.has_ended(part.name)]
    try:
        for part in todo:
            run_part(part, written, gpu=conditions["device"] != "cpu", end=end)
            print(f"\n{written.table()}\n", flush=True)
            if arguments.pack is not None:
                for name in summary.pack(output, arguments.pack):
                    print(f"too large for {arguments.pack}: {name}", flush=True)
    except KeyboardInterrupt:
        return 130
    return 1 if written.has_failed([part.name for part in todo]) else 0


def run_part(part: Part, written: Summary, gpu: bool, end: float) -> None:
    """Every step of a part within its limit; `end`, on the monotonic clock, is that of all parts."""
    remaining = end - time.monotonic()
    begun = remaining >= 60 * part.at_least
    part_end = min(end, time.monotonic() + 60 * part.minutes)
    kept_s = KEPT * 60 * part.minutes
    for number, step in enumerate(part.steps, start=1):
        if missing := step.missing(gpu):
            written.end(part.name, step.name, summary.SKIPPED, reason=missing)
        elif not begun:
            reason = f"{max(remaining, 0) / 60:.1f} minutes are left, and it wants {part.at_least:g}"
            written.end(part.name, step.name, summary.NO_TIME, reason=reason)
        else:
            step_end = part_end - kept_s * (len(part.steps) - number)
            _run_step(part, step, written, gpu, step_end, is_last=part_end == end)


def _run_step(part: Part, step: Step, written: Summary, gpu: bool, end: float, is_last: bool) -> None:
    """`is_last`: the part's time ends with that of all parts, so that another call may go on."""
    limit_s = end - time.monotonic() - GRACE_S
    if limit_s < 1:
        outcome = summary.NO_TIME if is_last else summary.CUT_OFF
        written.end(part.name, step.name, outcome, reason="the steps before it took the part's time")
        return
    name = re.sub("[^a-z0-9]+", "-", f"{part.name} {step.name}".lower()).strip("-")
    log = written.folder / f"{name}.log"
    command = step.chosen(gpu)
    print(f"== {part.name} {step.name} (at most {limit_s:.0f} s): {shlex.join(command)}", flush=True)
    written.begin(part.name, step.name, shlex.join(command), log.name)
    ending = limited.run(command, log, limit_s, ROOT, {**step.environment, "PYTHONPATH": _search_path()})
    facts = {"exit_code": ending.code, "seconds": round(ending.seconds, 1), "said": summary.said(log)}
    if ending.cut_off:
        outcome = summary.NO_TIME if is_last else summary.CUT_OFF
        written.end(part.name, step.name, outcome, **facts, reason=f"cut off after {limit_s:.0f} s")
    else:
        written.end(part.name, step.name, summary.FAILED if ending.code else summary.OK, **facts)
    if ending.code:
        print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]), flush=True)


def store(folder: Path) -> int:
    """Put the tables of a run among the recorded results, as the benchmarks do: none replaces a more complete one."""
    from benchmarks.harness import report

    found = sorted((folder / "results").glob("*.json"))
    for path in found:
        print(report.write(json.loads(path.read_text(encoding="utf-8")), report.RESULTS))
    if not found:
        print(f"error: --store must name a folder with results/*.json, got {folder}", file=sys.stderr)
    return 0 if found else 2


def _conditions() -> dict[str, str]:
    """The machine and the versions, read by another process: this one shall hold no memory of the GPU."""
    command = [sys.executable, "-c", CONDITIONS]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    conditions: dict[str, str] = json.loads(output.splitlines()[-1])
    return {key: conditions[key] for key in ("device", "machine", "versions", "commit")}


def _search_path() -> str:
    """PYTHONPATH with the repository before it: what is not installed is found by what the tests start, too."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harness.gpu_run",
        description="Tests, sanitizer, benchmarks, profile and training on an NVIDIA GPU, in parts that each leave "
        "their results. Without PART, all that have not ended yet in DIR: the same command goes on where it stopped.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="see --list; in the order given, also once more")
    parser.add_argument("--list", action="store_true", help="name the parts, with their limits, and end")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "gpu", metavar="DIR", help="runs/gpu")
    parser.add_argument("--minutes", type=float, metavar="N", help="limit of each part, where its own is longer")
    parser.add_argument("--within", type=float, default=math.inf, metavar="N", help="end after so many minutes in all")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="after every part, logs and results as one tar.gz")
    parser.add_argument("--store", type=Path, metavar="DIR", help="put DIR's tables into benchmarks/results, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
