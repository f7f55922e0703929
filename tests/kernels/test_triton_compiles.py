"""Do the Triton kernels compile for every GPU generation, without a GPU here, to wide loads and no local memory?"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")

ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
SCRIPT = Path(__file__).with_name("compile_triton_kernels.py")


def compile_in_process(*arguments: str) -> dict[str, dict[str, Any]]:
    # A process of its own: in this one TRITON_INTERPRET may have replaced the compiler.
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    command = [sys.executable, str(SCRIPT), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_every_variant_of_the_haar_kernels_compiles() -> None:
    """Levels, dtypes, layouts, cascades, transposes, and arguments that are 1, which Triton makes constants."""
    report = compile_in_process("90", "variants")
    assert len(report) == 2 * 4 * 2 * (4 + 3)
    assert all(kernel["cubin"] > 0 for kernel in report.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles(architecture: int) -> None:
    report = compile_in_process(str(architecture))
    assert len(report) == 8
    for name, kernel in report.items():
        assert kernel["cubin"] > 0, name
        assert kernel["local"] == 0, name
    for dtype in ("fp32", "bf16"):
        assert "ld.global.v4.b32" in report[f"haar_dwt2d_fwd {dtype}"]["instructions"]
        assert "st.global.v4.b32" in report[f"haar_dwt2d_bwd {dtype}"]["instructions"]
