"""What a result depends on beside its inputs: the commit, the versions of packages, the processor."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

# What a result depends on; what a measurement writes changes no measurement.
SOURCE = ("litevae", "litevae_kernels", "csrc", "benchmarks", ":(exclude)benchmarks/results")


def commit() -> str | None:
    """The commit of this source, with "+changes" if tracked files of it differ; None outside its own repository."""
    root = Path(__file__).parents[1]
    status = ["status", "--porcelain", "--untracked-files=no", "--", *SOURCE]
    commands = (["rev-parse", "HEAD"], status, ["ls-files", __file__])
    try:
        head, changes, own = (
            subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    if not own:  # a repository around an installed package
        return None
    return head.strip() + ("+changes" if changes.strip() else "")


def processor() -> str:
    """The name of the CPU's model, or of its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def version(package: str) -> str:
    """Of an installed package, or "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
