"""Do the Triton kernels compile for every GPU generation, without a GPU here, to wide accesses and no local memory?"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")

ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
SCRIPT = Path(__file__).with_name("compile_triton_kernels.py")


def compile_in_process(*arguments: str) -> dict[str, list[dict[str, Any]]]:
    # A process of its own: in this one TRITON_INTERPRET has replaced the compiler.
    result = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_aligned_tensors_get_16_byte_accesses_and_no_local_memory(architecture: int) -> None:
    for case, launched in compile_in_process(str(architecture), *([] if architecture == 90 else ["brief"])).items():
        for kernel in launched:
            assert kernel["local_bytes"] == kernel["local_accesses"] == 0, (case, kernel)
        # The tensors that fill memory; partial sums and parameters may be narrower, and of the Haar transform the
        # sub-bands are, and everything in channels_last.
        is_haar, is_analysis = case.startswith("haar"), "analysis" in case
        if not is_haar or (is_analysis and "NCHW" in case):
            assert any(16 in kernel["load_bytes"] for kernel in launched), (case, launched)
        if not is_haar or (not is_analysis and "NCHW" in case):
            assert any(16 in kernel["store_bytes"] for kernel in launched), (case, launched)


def test_every_variant_compiles() -> None:
    """Levels, dtypes, layouts, cascades, transposes, skips, and arguments that are 1, which Triton makes constants.

    Some odd shapes spill a few registers; none keeps an array in local memory.
    """
    report = compile_in_process("90", "variants")
    assert len(report) > 200
    for case, launched in report.items():
        assert launched, case
        assert all(kernel["local_bytes"] <= 64 for kernel in launched), (case, launched)
