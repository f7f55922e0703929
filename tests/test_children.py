"""Do programs that tests start hear signals, and does nothing of them outlive the test?"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import children

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
SLEEP = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", children.SIGNALS)
def test_a_child_hears_what_the_tests_ignore(number: int) -> None:
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        with children.started(
            [sys.executable, "-c", SLEEP], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as child:
            child.stdout.readline()
            child.send_signal(number)
            assert child.wait(10) != 0
    finally:
        signal.signal(number, previous)


def test_what_a_child_starts_in_a_session_of_its_own_is_killed_too() -> None:
    program = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
    )
    with children.started([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        pid = int(child.stdout.readline())
        os.kill(pid, 0)
    assert not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
