"""Runs the tests of the backend `cpu` on a build of csrc with AddressSanitizer and UndefinedBehaviorSanitizer.

    python -m tests.csrc.sanitize [pytest's arguments]

They report accesses outside the kernels' memory and undefined behaviour. The build has one level of csrc/cpu_level.h.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from csrc.build import FLAGS
from litevae_kernels import native

from .another_build import compile_library
from .levels import run_tests

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
LEVEL = ["-mavx2", "-mfma", "-DLITEVAE_ONE_LEVEL=avx2"]


def main() -> int:
    compiler = os.environ.get("CXX", "g++")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "_native_sanitized.so")
        compile_library(compiler, [*FLAGS, *SANITIZERS, *LEVEL, "-fopenmp"], library)
        environment = {
            native.ENVIRONMENT_VARIABLE: str(library),
            "LD_PRELOAD": ":".join(_runtime(compiler, name) for name in ("libasan.so", "libubsan.so")),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python and torch keep what they allocate
        }
        return run_tests(["-s", *sys.argv[1:]], environment)  # -s: pytest would keep the report of a process that ends


def _runtime(compiler: str, name: str) -> str:
    """The sanitizer's library, which is loaded before Python, as Python itself is built without it."""
    command = [compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
