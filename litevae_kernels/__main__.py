"""`python -m litevae_kernels` reports which backends this machine can run; `--check` runs each of them."""

import argparse
import os
import platform
import sys

import torch

from litevae_kernels import backends, nvrtc
from litevae_kernels.backends import ENVIRONMENT_VARIABLE, choose_backend
from litevae_kernels.machine import version
from litevae_kernels.precision import tf32
from litevae_kernels.testing import SampleCall, sample_calls

PACKAGES = ("litevae", "torch", "triton", "cuda-core", "numpy")
LARGEST_ERROR = 1e-5  # of float32 results and gradients, relative, against float64


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m litevae_kernels", description="What this machine can run, why the rest cannot, and versions."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="also run every operator on every backend that works here, forward and backward, against float64",
    )
    arguments = parser.parse_args()
    print("\n".join(report()))
    return check() if arguments.check else 0


def report() -> list[str]:
    """The report, in lines."""
    width = max(map(len, backends()))
    lines = ["litevae_kernels on this machine", ""]
    for name, status in backends().items():
        lines.append(f"  {name:<{width}}  {'works' if status.available else 'no   '}  {status.reason}")
    facts = {
        "default backend": _defaults(),
        ENVIRONMENT_VARIABLE: os.environ.get(ENVIRONMENT_VARIABLE) or "not set",
        "threads of cpu": f"{torch.get_num_threads()} (torch.set_num_threads changes it)",
        "cache of cuda": str(nvrtc.cache_folder()),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }
    width = max(map(len, facts))
    return [*lines, "", *(f"  {name:<{width}}  {value}" for name, value in facts.items())]


def check() -> int:
    """Prints the largest error of every operator on every backend that works; 1 if one of them is wrong."""
    print()
    with tf32(False):
        return _check_backends()


def _check_backends() -> int:
    failed = 0
    for name, status in backends().items():
        if not status.available:
            continue
        device = "cuda" if name in ("triton", "cuda") and torch.cuda.is_available() else "cpu"
        calls, exact_calls = (sample_calls(backend, device) for backend in (name, "reference"))
        for operator, call in calls.items():
            verdict = _verdict(call, exact_calls[operator])
            failed += not verdict.startswith("right")
            print(f"  {name:<9}  {operator:<26}  {verdict}")
    return 1 if failed else 0


def _verdict(call: SampleCall, exact_call: SampleCall) -> str:
    try:
        pairs = list(zip(call.results_and_gradients(), exact_call.results_and_gradients(torch.float64), strict=True))
    except RuntimeError as error:  # a kernel that does not compile or launch
        return f"FAILS  {error}"
    largest = max(float((one - two).norm() / two.norm().clamp_min(1)) for one, two in pairs)
    return f"{'right' if largest <= LARGEST_ERROR else 'WRONG'}  relative error {largest:.1e}"  # NaN is wrong


def _defaults() -> str:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    try:
        return ", ".join(f"{choose_backend(None, device)} for tensors on {device}" for device in devices)
    except (ValueError, RuntimeError) as error:  # what the environment variable asks for
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
