"""Programs that tests start. They take signals as from a terminal, and none outlives its test."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MARK = "LITEVAE_TEST_CHILD"  # in the environment of a child and of all that it starts
_PR_SET_PDEATHSIG = 1  # sys/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@contextlib.contextmanager
def default_signals() -> Iterator[None]:
    """This process hears SIGINT, SIGTERM and SIGHUP, also where a background job or nohup has them ignored."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def started(command: Sequence[str], env: dict[str, str] | None = None, **options: Any) -> Iterator[subprocess.Popen]:
    """A running program with the options of subprocess.Popen; at the end, it and what it started are killed."""
    mark = uuid.uuid4().hex
    environment = {**(os.environ if env is None else env), _MARK: mark}
    process = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=_before_exec, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while left := _marked(f"{_MARK}={mark}".encode()):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def run(command: Sequence[str], timeout: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """What the program printed and its exit code."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with started(command, **pipes, **options) as process:
        output, errors = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _before_exec() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # should the tests themselves be killed


def _marked(mark: bytes) -> list[int]:
    """Processes of any session: torchrun gives each of its own a new one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
