"""Everything that needs an NVIDIA GPU, what matters most first: `python -m benchmarks.gpu`.

Parts of at most 9.5 minutes, each of which leaves its results whatever becomes of the others. A GPU that is lent for
30 minutes in calls of ten gets the same command three times, with --within 9.5: it goes on where it stopped.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.schedule import positive
from litevae_kernels.files import check_file, check_folder, replacing, write_text

ROOT = Path(__file__).parents[1]
GRACE_S = 12.0  # from Ctrl-C, on which pytest stores its tables and a training run its state, to SIGKILL
FEWEST = 0.4  # of a part's minutes: with less left it is not begun
OK, FAILED, CUT_OFF, SKIPPED = "ok", "failed", "cut off", "skipped"
NOT_ENDED, NO_TIME = "not ended", "no time left"  # begun, and perhaps killed; all parts' time was over: run again
LARGEST_PACKED_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Part:
    """One command with a limit. In it stand {python}, {output}, and {minutes}: what the limit leaves, less `end`."""

    name: str
    minutes: float
    about: str
    command: str
    needs: str = ""  # packages
    gpu: bool = True  # whether it needs one
    end: float = 0.5

    def words(self, output: Path) -> list[str]:
        values = {"python": sys.executable, "output": output, "minutes": max(self.minutes - self.end, 0.1)}
        return [word.format(**values) for word in shlex.split(self.command)]

    def missing(self, program: str, gpu: bool) -> str:
        """Why it cannot run here, or ""."""
        if self.gpu and not gpu:
            return "needs an NVIDIA GPU"
        if packages := [name for name in self.needs.split() if importlib.util.find_spec(name) is None]:
            return f"not installed: {', '.join(packages)}"
        return "" if shutil.which(program, path=environment()["PATH"]) else f"no program {program} on the PATH"


PYTEST = "{python} -m pytest -q -p no:cacheprovider"
PARALLEL = f"-n {max(1, (os.cpu_count() or 1) - 2)}" if importlib.util.find_spec("xdist") else ""
# Wheels to bring where there is no internet: without them there are no ratios to Stable Diffusion's VAE, no training.
WHEELS = {
    "diffusers": "diffusers importlib-metadata zipp",
    "ptwt": "ptwt",
    "pywt": "PyWavelets",
    "omegaconf": "omegaconf",
    "lpips": "lpips",
    "skimage": "scikit-image lazy-loader imageio tifffile",
}


def sanitizer(tool: str, minutes: float, about: str, tests: str) -> Part:
    """Of the kernels of this library, not of torch's. Memory that torch fills with NaN would count as initialised."""
    kernels = " ".join(f"--kernel-name kns={name}_" for name in ("haar", "group_norm_silu", "smc"))
    code = 'import os; os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"; import pytest, torch; '
    code += "torch.utils.deterministic.fill_uninitialized_memory = False; raise SystemExit(pytest.main())"
    command = f"compute-sanitizer --tool {tool} --error-exitcode 9 --print-limit 20 {kernels} {{python}} -c '{code}'"
    command += f" -q -p no:cacheprovider tests/kernels/test_gpu.py -m gpu -k 'sanitized and ({tests})'"
    return Part(f"sanitizer_{tool.split()[0]}", minutes, about, command)


def benchmark(name: str, minutes: float, row_s: float, about: str, files: str, needs: str = "") -> Part:
    paths = " ".join(f"benchmarks/bench_{file}.py" for file in files.split())
    command = f"{PYTEST} {paths} --benchmark-only --minutes {{minutes}} --row-seconds {row_s} "
    command += "--results {output}/results"
    return Part(name, minutes, about, command, f"pytest_benchmark {needs}", gpu=False)


def training(name: str, minutes: float, about: str, row: str, to: str, *overrides: str) -> Part:
    command = f"{{python}} -m benchmarks.comparison --minutes {{minutes}} --only {row} --runs {{output}}/{to}/runs "
    command += f"--results {{output}}/{to} full {' '.join(overrides)}"
    needs = "diffusers omegaconf accelerate skimage torchmetrics tqdm matplotlib lpips"
    return Part(name, minutes, about, command, needs, end=1.5)


OPERATORS = "haar_dwt2d group_norm_silu smc_conv2d host_cost"
ENCODE = "{python} -m benchmarks.harness.encode_profile"
NCU = "ncu --kernel-name regex:haar|group_norm_silu|smc --launch-count 80 --clock-control none "
NCU += "--profile-from-start off --target-processes all --csv --page raw --metrics "
NCU += "gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,launch__registers_per_thread,"
NCU += "dram__throughput.avg.pct_of_peak_sustained_elapsed"
PARTS = [
    Part("machine", 2.5, "which backends work, and are they right", "{python} -m litevae_kernels --check", gpu=False),
    Part("tests", 5, "pytest -m gpu", f"{PYTEST} {PARALLEL} tests -m gpu -k 'not 2_to_the_31'"),
    Part("tests_huge", 1.5, "tensors that want the GPU for themselves", f"{PYTEST} tests -m gpu -k 2_to_the_31"),
    benchmark("operators", 7, 0.5, "the operators beside a copy, eager, torch.compile and others", OPERATORS),
    Part("profile", 1.5, "each kernel of LiteVAE-B's encoder", f"{ENCODE} --output {{output}}"),
    benchmark("table3", 6, 3.0, "Table 3: the encoders", "table3_encoders"),
    sanitizer("memcheck --report-api-errors no", 3, "accesses outside of memory", "float32 or bfloat16"),
    training("train_litevae", 6, "LiteVAE-B, bfloat16", "LiteVAE-B", "results"),
    benchmark("decoders", 3, 1.0, "the decoders, and what the encoders hold", "memory decoders", "diffusers"),
    benchmark("training_step", 4, 1.0, "an update of training", "training_step", "diffusers"),
    benchmark("growth", 3, 0.5, "encoding, from small to large; evaluating", "growth evaluation", "diffusers"),
    Part("profile_ncu", 1.5, "the same, by Nsight Compute", f"{NCU} {ENCODE} --plain"),
    sanitizer("racecheck", 2, "races in shared memory", "float32"),
    sanitizer("initcheck", 2, "reading memory that nobody wrote", "float32"),
    training("train_sd_vae", 6, "Stable Diffusion's VAE, bfloat16", "SD-VAE", "results"),
    training("train_fp16", 3, "LiteVAE-B with a scaled loss", "LiteVAE-B", "fp16", "train.mixed_precision=fp16"),
    benchmark("fuse", 6, 1.0, "the autoencoders of diffusers, before and after fuse()", "fuse", "diffusers"),
]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 1 if something failed, 2 for a wrong request, 130 and 143 after Ctrl-C and SIGTERM."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.store is not None:
            return store(arguments.store)
        check_folder("--output", arguments.output)
        if arguments.pack is not None:
            check_file("--pack", arguments.pack, (".tar.gz", ".tgz"))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    output: Path = arguments.output.resolve()
    parts = [replace(part, minutes=min(part.minutes, arguments.minutes)) for part in PARTS]
    named = {name: [part for part in parts if f"{part.name}_".startswith(f"{name}_")] for name in arguments.parts}
    if unknown := ", ".join(name for name, found in named.items() if not found):
        print(f"error: PART must be one of {', '.join(part.name for part in parts)}, got {unknown}", file=sys.stderr)
        return 2
    if arguments.list:
        print("\n".join(f"{part.name:<20} {part.minutes:>4g} min  {part.about}" for part in parts))
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT also where a shell's background jobs ignore it
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    end = time.monotonic() + 60 * arguments.within
    conditions = machine()
    print(missing_wheels(), end="")
    over = [entry["part"] for entry in read(output) if entry["outcome"] not in (NOT_ENDED, NO_TIME)]
    chosen = [part for found in named.values() for part in found] or [part for part in parts if part.name not in over]
    failed = False
    for part in chosen:
        failed |= run_part(part, output, conditions, end) not in (OK, SKIPPED)
        for entry in read(output):
            said = entry.get("reason") or entry.get("said", "")
            print(f"{entry['part']:<20} {entry['outcome']:<13} {said}", flush=True)
        if arguments.pack is not None:
            pack(output, arguments.pack)
    return int(failed)


def run_part(part: Part, output: Path, conditions: dict[str, str], end: float) -> str:
    """Run it within its limit and before `end`, on the monotonic clock. Returns the outcome, which is recorded, too."""
    start, own_s = time.monotonic(), 60 * part.minutes
    limit_s = max(min(own_s, end - start) - GRACE_S, 1.0)
    words = replace(part, minutes=min(own_s, max(end - start, 0.0)) / 60).words(output)
    log = output / f"{part.name}.log"
    entry: dict[str, Any] = {"part": part.name, **conditions, "command": shlex.join(words), "log": log.name}
    if reason := part.missing(words[0], gpu=conditions["device"] != "cpu"):
        return record(output, entry | {"outcome": SKIPPED, "reason": reason})
    if end - start < FEWEST * own_s:
        reason = f"{max(end - start, 0) / 60:.1f} minutes are left, and it wants {FEWEST * part.minutes:.1f}"
        return record(output, entry | {"outcome": NO_TIME, "reason": reason})
    print(f"\n== {part.name} (at most {limit_s:.0f} s): {entry['command']}", flush=True)
    record(output, entry | {"outcome": NOT_ENDED})
    code, cut_off = run(words, log, limit_s)
    said = [text for text in log.read_text(encoding="utf-8", errors="replace").splitlines() if text.strip(" =")][-1]
    entry |= {"outcome": FAILED if code else OK, "exit_code": code, "said": said.strip(" =")[:88]}
    if cut_off:
        entry |= {"outcome": NO_TIME if end - start < own_s else CUT_OFF, "reason": f"cut off after {limit_s:.0f} s"}
    return record(output, entry | {"seconds": round(time.monotonic() - start, 1)})


def run(command: Sequence[str], log: Path, limit_s: float, grace_s: float = GRACE_S) -> tuple[int, bool]:
    """Run `command` with its output in `log`; returns its exit code, and whether the limit ended it.

    At the limit it and what it started get SIGINT, and SIGKILL once the grace is over. Nothing outlives this call.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    cut_off = False
    with log.open("w", encoding="utf-8") as output:
        print("$", shlex.join(command), file=output, flush=True)
        outputs: Any = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), start_new_session=True, **outputs)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            cut_off = True
            print(f"\n== cut off after {limit_s:.0f} s", file=output, flush=True)
        finally:  # also when this process was interrupted
            for number in (signal.SIGINT, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(grace_s)
    return process.returncode, cut_off


def environment() -> dict[str, str]:
    """What the tests start finds the repository, too; the CUDA toolkit's programs are found where it installs them."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    programs = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/cuda/bin"])
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, "PATH": programs}


def machine() -> Any:
    """The conditions of the run, read by another process: this one shall hold no memory of the GPU."""
    code = "import json; from benchmarks.harness.report import conditions; print(json.dumps(conditions('')))"
    return json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment()))


def missing_wheels() -> str:
    """Which packages to bring, and how."""
    absent = [name for name in WHEELS if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    python, wheels = f"{sys.version_info.major}.{sys.version_info.minor}", " ".join(WHEELS[name] for name in absent)
    return (
        f"not installed: {', '.join(absent)}. To bring them, where there is internet:\n"
        f"    pip download --no-deps --only-binary=:all: --python-version {python} --platform manylinux_2_28_x86_64 "
        f"--platform manylinux2014_x86_64 -d wheels {wheels}\n"
        "and here: pip install --no-index --no-deps --target site wheels/*.whl && export PYTHONPATH=$PWD/site\n"
    )


def read(output: Path) -> list[dict[str, Any]]:
    """The entries of summary.json: one for each part, as it stood last."""
    path = output / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def record(output: Path, entry: dict[str, Any]) -> str:
    """Put it into summary.json; returns its outcome."""
    entries = {other["part"]: other for other in read(output)} | {entry["part"]: entry}
    write_text(output / "summary.json", json.dumps(list(entries.values()), indent=1) + "\n")
    return str(entry["outcome"])


def pack(folder: Path, archive: Path) -> None:
    """What is small in `folder`, as one tar.gz; checkpoints and traces stay where they are."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.resolve() != archive.resolve()]
    with replacing(archive) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for path in (path for path in found if path.stat().st_size <= LARGEST_PACKED_BYTES):
            tar.add(path, Path(archive.name.partition(".")[0]) / path.relative_to(folder))


def store(folder: Path) -> int:
    """Put the tables of a run among the recorded results, as the benchmarks do: none replaces a more complete one."""
    from benchmarks.harness import report

    check_folder("benchmarks/results", report.RESULTS)
    found = sorted((folder / "results").glob("*.json"))
    if not found:
        raise ValueError(f"--store must name a folder with results/*.json, got {folder}")
    for path in found:
        print(report.write(json.loads(path.read_text(encoding="utf-8")), report.RESULTS))
    return 0


def _parser() -> argparse.ArgumentParser:
    about = "Without PART, all that have not ended yet in DIR: the same command goes on where it stopped."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=about)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help="see --list; in the order given, also once more; of x_y, x is enough")
    add("--list", action="store_true", help="name the parts, with their limits, and end")
    add("--output", type=Path, default=ROOT / "runs" / "gpu", metavar="DIR", help="runs/gpu")
    add(
        "--minutes",
        type=positive,
        default=math.inf,
        metavar="N",
        help="limit of each part, where its own is longer",
    )
    add("--within", type=positive, default=math.inf, metavar="N", help="end after so many minutes in all")
    add("--pack", type=Path, metavar="FILE", help="after every part, logs and results as one tar.gz")
    add("--store", type=Path, metavar="DIR", help="put DIR's tables into benchmarks/results, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
