"""The build of csrc into the package. `pip install` runs these commands; a failed build never fails the install.

The CPU kernels become a shared library with a plain C interface. It is not a Python extension, so the build needs
neither torch nor Python's headers. The reason of a failed build is written beside the package, where
`litevae_kernels.backends()` reads it. The CUDA kernels are installed as sources; `litevae_kernels.nvrtc` compiles them
on first use.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CCompilerError, ExecError, PlatformError

# -ffp-contract=fast, GCC's default, is for clang: the accuracy and speed of `exponential` rely on fused multiply-adds.
FLAGS = ["-O3", "-std=c++17", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=fast", "-Wno-psabi"]
CSRC = Path(__file__).parent
SOURCES = [CSRC / "library.cpp", *sorted(CSRC.glob("*/*.cpp"))]
BUILD_LOG = "_native_build.log"
FAILURES = (CCompilerError, ExecError, PlatformError, OSError)
CUDA_FOLDER = Path("litevae_kernels", "_csrc")  # read by litevae_kernels/nvrtc.py; an editable install reads csrc


class BuildNative(build_ext):
    """Builds with OpenMP where the compiler has it, else without; if that fails too, records the reason."""

    def finalize_options(self) -> None:
        super().finalize_options()
        for ext in self.extensions:
            ext.sources = [os.path.relpath(source) for source in SOURCES]
            ext.depends = sorted(os.path.relpath(path) for path in (*CSRC.rglob("*.h"), CSRC / "build.py"))

    def build_extensions(self) -> None:
        self.compiler.compile = _all_at_once(self.compiler.compile)
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        log = self._package_folder(ext) / BUILD_LOG
        log.unlink(missing_ok=True)
        try:
            try:
                self._build(ext, ["-fopenmp"])
            except FAILURES:
                self._build(ext, [])
        except FAILURES as error:
            for stale in log.parent.glob(f"{ext.name.rpartition('.')[2]}*.so"):
                stale.unlink()
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"{type(error).__name__}: {error}\n")
            raise  # the extension is optional: setuptools warns and goes on

    def _build(self, ext: Extension, openmp: list[str]) -> None:
        ext.extra_compile_args, ext.extra_link_args = FLAGS + openmp, openmp
        super().build_extension(ext)

    def _package_folder(self, ext: Extension) -> Path:
        if self.inplace or getattr(self, "editable_mode", False):
            package, _, _ = ext.name.rpartition(".")
            return Path(self.get_finalized_command("build_py").get_package_dir(package))
        return Path(self.get_ext_fullpath(ext.name)).parent


def _all_at_once(compile_in_turn: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """setuptools' `compile`, which compiles one source after the other, spread over all cores."""

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def compile_sources(sources: list[str], **settings: Any) -> list[str]:
        with ThreadPoolExecutor(min(len(sources), cores)) as pool:
            return list(chain(*pool.map(lambda source: compile_in_turn([source], **settings), sources)))

    return compile_sources


class BuildPackages(build_py):
    """Adds the sources that NVRTC compiles to wheels, sdists and editable installs, by setuptools' SubCommand."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for target, source in self._cuda_sources().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *self._cuda_sources().values()]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._cuda_sources()]

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), **self._cuda_sources()}

    def _cuda_sources(self) -> dict[str, str]:
        """The headers and .cu files of csrc by their place in the built package."""
        sources = sorted(path for kind in ("*.h", "*.cu") for path in Path("csrc").rglob(kind))
        return {str(Path(self.build_lib, CUDA_FOLDER, *path.parts[1:])): str(path) for path in sources}
