"""Do the CPU kernels stay within their memory and within C++? One command: python csrc/sanitize.py [pytest's arguments]

Builds csrc with AddressSanitizer and UndefinedBehaviorSanitizer and runs the tests of the backend `cpu` on that build.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import build

CSRC = Path(__file__).parent
SOURCES = sorted(CSRC.glob("*/*.cpp"))
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
SANITIZERS += ["-fopenmp", "-mavx2", "-mfma", "-DLITEVAE_ONE_WIDTH=32"]


def main() -> int:
    compiler = os.environ.get("CXX", "g++")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "_native_sanitized.so")
        flags = [flag for flag in build.FLAGS if flag != "-O3"] + SANITIZERS
        objects = [Path(folder, f"{source.parent.name}_{source.stem}.o") for source in SOURCES]
        compilers = [
            subprocess.Popen([compiler, *flags, "-c", "-fPIC", source, "-o", result])
            for source, result in zip(SOURCES, objects, strict=True)
        ]
        if any(process.wait() != 0 for process in compilers):
            return 1
        subprocess.run([compiler, *SANITIZERS, "-shared", *objects, "-o", library], check=True)
        runtimes = [_runtime(compiler, name) for name in ("libasan.so", "libubsan.so")]
        environment = {
            **os.environ,
            "LITEVAE_KERNELS_NATIVE": str(library),
            "LD_PRELOAD": ":".join(runtimes),  # Python itself is not built with them
            "ASAN_OPTIONS": "detect_leaks=0",  # Python and torch keep what they allocate
        }
        # -s: a report that ends the process would be lost in what pytest has captured.
        tests = ["-m", "pytest", str(CSRC.parent / "tests" / "kernels"), "-k", "cpu and not huge", "-q", "-s"]
        return subprocess.run([sys.executable, *tests, *sys.argv[1:]], env=environment).returncode


def _runtime(compiler: str, name: str) -> str:
    command = [compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
