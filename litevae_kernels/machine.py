"""What a result depends on beside its inputs: the commit, the versions of packages, the processor."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

NOT_IN_COMMIT = ":(exclude)benchmarks/results"  # what a measurement writes changes no measurement


def commit() -> str:
    """The commit of this source, with "+changes" if files other than recorded results differ from it.

    Of a copy without a repository, what the environment variable LITEVAE_COMMIT says it is.
    """
    root = Path(__file__).parents[1]
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--", ".", NOT_IN_COMMIT], ["ls-files", __file__])
    try:
        head, changes, own = (
            subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in commands
        )
    except (OSError, subprocess.CalledProcessError):
        own = ""
    if not own:  # no repository, or one around an installed package
        return os.environ.get("LITEVAE_COMMIT", "unknown (no git repository)")
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
