"""Another build of the library of CPU kernels, for sanitize.py and aarch64.py."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from csrc.build import SOURCES


def compile_library(compiler: str, flags: Sequence[str], result: Path) -> None:
    """Builds the sources of csrc/build.py with another compiler or other flags."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def compile_source(source: Path) -> Path:
            built = Path(folder, f"{source.parent.name}_{source.stem}.o")
            subprocess.run([compiler, *flags, "-fPIC", "-c", source, "-o", built], check=True)
            return built

        objects = list(pool.map(compile_source, SOURCES))
        subprocess.run([compiler, *flags, "-shared", *objects, "-o", result], check=True)
