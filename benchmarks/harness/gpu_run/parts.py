"""The parts of a run on a GPU: what each executes, and what of it a CPU can try."""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.gpu_run.limited import GRACE_S

NO_GPU = "needs an NVIDIA GPU"
TRAINING_PACKAGES = ("diffusers", "omegaconf", "accelerate", "skimage", "torchmetrics", "tqdm", "matplotlib", "lpips")
CUDA_FOLDERS = ("/usr/local/cuda*/bin", "/opt/nvidia/nsight-compute/*", "/opt/nvidia/nsight-systems/*/bin")
END_MINUTES = 0.5  # of a part: setting up, and storing the tables
WORKERS = 8  # of pytest-xdist, if it is there: most of the tests' time is compiling

METRICS = (  # of Nsight Compute: time, bytes from and to the memory, how busy it was, registers
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "launch__registers_per_thread",
)


@dataclass(frozen=True)
class Step:
    """One command. `on_cpu` is what a machine without a GPU runs of it: None if nothing."""

    name: str
    command: Sequence[str]
    on_cpu: Sequence[str] | None = None
    packages: Sequence[str] = ()  # that it needs beside torch, numpy and pytest
    environment: Mapping[str, str] = field(default_factory=dict)

    def chosen(self, gpu: bool) -> Sequence[str]:
        return self.command if gpu else self.on_cpu or ()

    def missing(self, gpu: bool) -> str:
        """Why it cannot run here, or ""."""
        if not gpu and self.on_cpu is None:
            return NO_GPU
        packages = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if packages:
            return f"not installed: {', '.join(packages)}"
        program = self.chosen(gpu)[0]
        return "" if shutil.which(program) else f"no program {program} on the PATH"


@dataclass(frozen=True)
class Part:
    """`minutes` is its limit, of all steps together; with less than `at_least` left it is not begun."""

    name: str
    minutes: float
    at_least: float
    about: str
    steps: Sequence[Step]


def parts(output: Path, minutes: float | None = None) -> list[Part]:
    """All parts, in the order in which they are run. `minutes` replaces the limit of each, where it is shorter."""
    made = [_machine(), _tests(output), _sanitizer(), *_benchmarks(output, minutes), _profile(output)]
    made += [
        _training("train_litevae", "litevae-b-bf16", 8, output, minutes),
        _training("train_sd_vae", "sd-vae-bf16", 8, output, minutes),
        _training("train_fp16", "litevae-b-fp16", 2.5, output, minutes),
        _suite(output),
    ]
    if minutes is None:
        return made
    return [
        Part(part.name, min(part.minutes, minutes), min(part.at_least, minutes), part.about, part.steps)
        for part in made
    ]


def program(name: str) -> str:
    """A program of the CUDA toolkit: its path, or its name where it is not found."""
    folders = [folder for pattern in CUDA_FOLDERS for folder in sorted(glob.glob(pattern), reverse=True)]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders)) or name


def _python(module: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *map(str, arguments))


def _pytest(*arguments: object) -> tuple[str, ...]:
    return _python(
        "pytest", "-q", "-p", "no:cacheprovider", "-p", "benchmarks.harness.gpu_run.pytest_options", *arguments
    )


def _machine() -> Part:
    check = _python("litevae_kernels", "--check")
    steps = [Step("backends", check, check), Step("driver", [program("nvidia-smi")])]
    return Part("machine", 2.5, 0.5, "which backends work, and are they right; the driver", steps)


def _tests(output: Path) -> Part:
    parallel = ("-n", WORKERS) if importlib.util.find_spec("xdist") else ()
    threads = {"OMP_NUM_THREADS": "2"} if parallel else {}
    huge = "2_to_the_31"  # these need most of the GPU's memory for themselves
    small = _pytest("tests", "-m", "gpu", "-k", f"not {huge}", *parallel, f"--junitxml={output / 'tests-gpu.xml'}")
    large = _pytest("tests", "-m", "gpu", "-k", huge, f"--junitxml={output / 'tests-huge.xml'}")
    steps = [Step("gpu", small, environment=threads), Step("huge tensors", large)]
    return Part("tests", 6, 2, "pytest -m gpu", steps)


def _suite(output: Path) -> Part:
    parallel = ("-n", WORKERS, "--dist", "loadfile") if importlib.util.find_spec("xdist") else ()
    threads = {"OMP_NUM_THREADS": "2"} if parallel else {}
    whole = _pytest("tests", "-m", "not gpu", *parallel, f"--junitxml={output / 'tests-suite.xml'}")
    small = _pytest("tests/kernels/test_main.py", f"--junitxml={output / 'tests-suite.xml'}")
    return Part("suite", 9.5, 3, "all other tests", [Step("", whole, small, environment=threads)])


def _sanitizer() -> Part:
    """Memory errors, races and unwritten memory in the kernels of this library, not in those of torch."""
    chosen = {
        "memcheck": "sanitized and (float32 or bfloat16)",
        "racecheck": "sanitized and float32",
        "initcheck": "sanitized and float32",
    }
    kernels = [word for name in ("haar_", "group_norm_silu_", "smc_") for word in ("--kernel-name", f"kns={name}")]
    steps = []
    for tool, tests in chosen.items():
        options = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "20", *kernels]
        # PyTorch asks CUDA what may fail, and handles it.
        options += ["--report-api-errors", "no"] if tool == "memcheck" else []
        fresh = ("--keep-fresh-memory",) if tool == "initcheck" else ()
        command = _pytest("tests/kernels/test_gpu.py", "-m", "gpu", "-k", tests, *fresh)
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        steps.append(Step(tool, (program("compute-sanitizer"), *options, *command), environment=environment))
    return Part("sanitizer", 6, 2, "compute-sanitizer on the Triton and the CUDA C++ kernels", steps)


def _benchmarks(output: Path, minutes: float | None) -> list[Part]:
    """Every part is one run of pytest, which divides the part's minutes over its rows."""

    def part(
        name: str, limit: float, at_least: float, about: str, files: Sequence[str], on_cpu: str, *packages: str
    ) -> Part:
        own = max(min(limit, minutes or limit) - END_MINUTES, 0.1)
        common = (*(f"benchmarks/bench_{file}.py" for file in files), "--benchmark-only", "--minutes", own)
        command = (*common, "--results", output / "results")
        step = Step("", _pytest(*command), _pytest(*command, "--quick", "-k", on_cpu), ("pytest_benchmark", *packages))
        return Part(name, limit, at_least, about, [step])

    operators = ["haar_dwt2d", "group_norm_silu", "smc_conv2d", "host_cost"]
    some = "copy or forward and 192 and NCHW and cpu or host_cost and haar_dwt2d and cpu"
    about = "the operators beside a copy, eager, torch.compile and others"
    few, about_decoders = (
        "memory and LiteVAE-S or decoders and float32",
        "the decoders, and what the encoders hold",
    )
    return [
        part("operators", 7, 2, about, operators, some),
        part("table3", 9.5, 2.5, "Table 3: the encoders", ["table3_encoders"], "float32"),
        part("decoders", 6, 2, about_decoders, ["memory", "decoders"], few, "diffusers"),
        part("training_step", 6, 2, "an update of training", ["training_step"], "128x128 and float32", "diffusers"),
        part("growth", 5, 1.5, "encoding, from small to large", ["growth"], "1 and 128x128 and float32", "diffusers"),
    ]


def _profile(output: Path) -> Part:
    encode = _python("benchmarks.harness.gpu_run.encode_profile", "--output", output)
    plain = _python("benchmarks.harness.gpu_run.encode_profile", "--plain")
    ncu = (program("ncu"), "--clock-control", "none", "--profile-from-start", "off", "--target-processes", "all")
    nsys = (program("nsys"), "profile", "--stats=true", "--capture-range=cudaProfilerApi", "--force-overwrite=true")
    steps = [
        Step("torch", encode, (*encode, "--batch", "1", "--side", "64")),
        Step("ncu", (*ncu, "--csv", "--page", "raw", "--metrics", ",".join(METRICS), *plain)),
        Step("nsys", (*nsys, "-o", str(output / "encode"), *plain)),
    ]
    return Part("profile", 3, 1, "time, bytes and registers of each kernel of LiteVAE-B's encoder", steps)


def _training(name: str, run: str, limit: float, output: Path, minutes: float | None) -> Part:
    """A run ends by itself, within its limit."""
    limit = limit if minutes is None else min(limit, minutes)
    own = round(max(limit - 2 * GRACE_S / 60, 0.1), 2)
    command = _python("benchmarks.harness.gpu_run.training", run, "--minutes", own, "--output", output)
    steps = [Step("", command, (*command, "--small"), TRAINING_PACKAGES)]
    return Part(name, limit, min(limit, 2.0), f"train {run} at 128, then at 256", steps)
