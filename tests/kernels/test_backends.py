"""Is the backend the one that was asked for, and is the reason given where it cannot run?"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from litevae_kernels import backends, haar_dwt2d, native, nvrtc
from litevae_kernels.backends import ENVIRONMENT_VARIABLE, BackendStatus, choose_backend

MODULE = sys.modules[choose_backend.__module__]  # litevae_kernels.backends is the function of that name


def test_reports_every_backend_with_a_reason() -> None:
    report = backends()
    assert list(report) == ["triton", "cuda", "cpu", "reference"]
    assert report["reference"].available
    assert all(status.reason for status in report.values())


def test_default_for_cpu_tensors_is_cpu() -> None:
    assert choose_backend(None, "cpu") == ("cpu" if backends()["cpu"].available else "reference")


@pytest.mark.parametrize(
    ("missing", "fastest"), [((), "triton"), (("triton",), "cuda"), (("triton", "cuda"), "reference")]
)
def test_default_for_cuda_tensors(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], fastest: str) -> None:
    monkeypatch.setattr(MODULE, "_status", lambda name: BackendStatus(name not in missing, "as the test says"))
    assert choose_backend(None, "cuda") == fastest


def test_default_skips_what_the_operator_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_status", lambda name: BackendStatus(True, "as the test says"))
    monkeypatch.setattr(MODULE, "_has", lambda room, name: name != "triton")
    assert choose_backend(None, "cuda", "a_new_operator") == "cuda"


def test_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "reference")
    assert choose_backend(None, "cpu") == "reference"
    assert choose_backend("cpu", "cpu") == "cpu"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "tritn")
    with pytest.raises(ValueError, match="LITEVAE_KERNELS_BACKEND must be one of 'triton', 'cuda', 'cpu', 'reference'"):
        choose_backend(None, "cpu")


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="backend must be one of 'triton', 'cuda', 'cpu', 'reference', got 'gpu'"):
        haar_dwt2d(torch.ones(1, 1, 2, 2), backend="gpu")


def test_missing_backends_say_why(tmp_path: Path) -> None:
    """In a process without a GPU, the interpreter and the built library, all refuse, and the default still works."""
    program = """
import torch
from pathlib import Path
from litevae_kernels import backends, haar_dwt2d, native
native._path = lambda: None
native.BUILD_LOG = Path("build.log")
native.BUILD_LOG.write_text("CompileError: g++ not found")
for name in ("triton", "cuda", "cpu"):
    try:
        haar_dwt2d(torch.ones(1, 1, 2, 2), backend=name)
    except RuntimeError as error:
        print(error)
print(haar_dwt2d(torch.ones(1, 1, 2, 2))[0].flatten().tolist())
"""
    environment = {
        "PATH": "/usr/bin:/bin",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(native.__file__).parents[1]),
    }
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    triton, cuda, cpu, value = result.stdout.splitlines()
    assert "backend 'triton' cannot run on this machine: " in triton
    assert "no CUDA device" in triton or "not installed" in triton
    assert "backend 'cuda' cannot run on this machine: " in cuda
    assert "no CUDA device" in cuda or "not installed" in cuda
    assert "were not built when litevae was installed (CompileError: g++ not found); install a C++17 compiler" in cpu
    assert value == "[2.0, 0.0, 0.0, 0.0]"


def test_triton_on_a_cpu_tensor_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if not backends()["triton"].available:
        pytest.skip(backends()["triton"].reason)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        haar_dwt2d(torch.ones(1, 1, 2, 2), backend="triton")


def test_cuda_on_a_cpu_tensor_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_status", lambda name: BackendStatus(True, "as the test says"))
    monkeypatch.setattr(nvrtc, "host_launch", None)
    with pytest.raises(RuntimeError, match=r"backend 'cuda' cannot run on a cpu tensor; move it with \.cuda\(\)"):
        haar_dwt2d(torch.ones(1, 1, 2, 2), backend="cuda")


def test_a_broken_triton_is_reported(tmp_path: Path) -> None:
    """One that is installed and does not import, as after a partial upgrade."""
    (tmp_path / "triton.py").write_text("from triton.runtime import missing\n")
    program = "from litevae_kernels import backends; print(backends()['triton'])"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(native.__file__).parents[1]}"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert "available=False" in result.stdout
    assert "does not import" in result.stdout


def test_import_initialises_nothing() -> None:
    program = (
        "import sys, litevae_kernels, torch; "
        "assert not torch.cuda.is_initialized(); assert 'triton' not in sys.modules, 'triton'; "
        "assert 'cuda.core' not in sys.modules; "
        "assert 'litevae_kernels.haar_dwt2d.triton_backend' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
