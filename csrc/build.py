"""How are the CPU kernels built? `pip install` runs this build_ext; a failed build never fails the install.

The result is a shared library with a plain C interface, not a Python extension: it needs no torch and no Python
headers. Why a build failed is kept beside the package, where `litevae_kernels.backends()` reads it.
"""

from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

FLAGS = ["-O3", "-std=c++17", "-fvisibility=hidden", "-fno-math-errno", "-Wno-psabi"]
BUILD_LOG = "_native_build.log"
FAILURES = (CCompilerError, ExecError, PlatformError, OSError)


class BuildNative(build_ext):
    """Builds with OpenMP where the compiler has it, else without, else records the reason."""

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
