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
        # The tensors that fill memory; partial sums, parameters and the coarsest sub-bands may be narrower.
        assert any(16 in kernel["load_bytes"] for kernel in launched), (case, launched)
        assert any(16 in kernel["store_bytes"] for kernel in launched), (case, launched)
        if case.startswith("haar"):  # the image, whole; and no sub-band of bf16 or fp32 element by element
            sides = ("load_bytes", "store_bytes") if "analysis" in case else ("store_bytes", "load_bytes")
            image, sub_bands = ([kernel[side] for kernel in launched] for side in sides)
            assert all(min(widths) == 16 for widths in image), (case, launched)
            assert all(max(widths) == 16 and min(widths) >= 4 for widths in sub_bands), (case, launched)
            assert "fp32" not in case or all(min(widths) >= 8 for widths in sub_bands), (case, launched)


def test_every_variant_compiles() -> None:
    """Levels, dtypes, layouts, cascades, transposes, skips, and arguments that are 1, which Triton makes constants.

    A Haar transform of a single pixel, 16 times repeated in float64, spills a few registers; nothing else does.
    """
    report = compile_in_process("90", "variants")
    assert len(report) > 200
    for case, launched in report.items():
        assert launched, case
        most = 128 if "fp64" in case and " 1x1," in case else 0
        assert all(one["local_bytes"] <= most and not one["local_accesses"] for one in launched), (case, launched)
