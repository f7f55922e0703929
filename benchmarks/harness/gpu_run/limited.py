"""A command with a time limit: it ends with all its children, and its output is in a file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 12.0  # from Ctrl-C, on which pytest stores its tables and a training run its state, to SIGKILL
_PR_SET_PDEATHSIG = 1  # sys/prctl.h


@dataclass(frozen=True)
class Ending:
    code: int
    seconds: float
    cut_off: bool
    """Whether the limit ended it."""


def run(
    command: Sequence[str],
    log: Path,
    limit_s: float,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    grace_s: float = GRACE_S,
) -> Ending:
    """Run `command` in `folder` with its output in `log`, at most `limit_s` and then `grace_s` long.

    At the limit it and its children get SIGINT, and SIGKILL once the grace is over. Nothing of it outlives this call,
    nor this process, however that one ends.

    Raises:
        OSError: the command cannot be started.
    """
    start = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        print("$", shlex.join(command), file=output, flush=True)
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            preexec_fn=_before_exec,
        )
        cut_off = False
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            cut_off = True
            print(f"\n== cut off after {limit_s:.0f} s", file=output, flush=True)
        finally:  # also when this process was interrupted
            _end(process, grace_s)
    return Ending(process.returncode, time.monotonic() - start, cut_off)


def _before_exec() -> None:
    os.setpgid(0, 0)  # a group of its own, which can be signalled as one
    # A shell starts background jobs with SIGINT ignored, which a program inherits.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":  # SIGKILL of the parent is also the child's end
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End what is still there of the process and its descendants, among them those that left its group."""
    family = _descendants(process.pid)
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        family |= _descendants(process.pid)
    _signal_group(process.pid, signal.SIGKILL)
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses for zombies
        os.killpg(group, number)


def _descendants(pid: int) -> set[int]:
    """The children of a process, theirs, and so on, as Linux's /proc has them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(path.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = [child for child in children.get(waiting.pop(), []) if child not in found]
        found.update(new)
        waiting += new
    return found
