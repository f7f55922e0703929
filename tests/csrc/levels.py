"""Runs the tests of the backend `cpu` at every level of this CPU, with one thread and with two.

    python -m tests.csrc.levels [pytest's arguments]

So the code that older CPUs run is tested on a newer one. csrc/cpu_level.h says what a level is.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from litevae_kernels import native

TESTS = Path(__file__).parents[1] / "kernels"
THREADS = (1, 2)


def main() -> int:
    available, reason = native.status()
    if not available:
        sys.exit(reason)
    failed = []
    for level in native.levels():
        for threads in THREADS:
            run = f"level {level}, threads {threads}"
            print(f"----- {run}", flush=True)
            environment = {native.LEVEL_VARIABLE: level, "OMP_NUM_THREADS": str(threads)}
            failed += [run] if run_tests(sys.argv[1:], environment) != 0 else []
    print(f"failed: {'; '.join(failed)}" if failed else "passed at every level")
    return 1 if failed else 0


def run_tests(arguments: Sequence[str], environment: dict[str, str]) -> int:
    """pytest's exit code for the tests of the backend `cpu`, with `environment` added to this process's own."""
    # The tests of huge tensors need more memory and time than a sanitizer or an emulator leaves.
    command = [sys.executable, "-m", "pytest", str(TESTS), "-k", "cpu and not huge", "-q", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}).returncode


if __name__ == "__main__":
    sys.exit(main())
