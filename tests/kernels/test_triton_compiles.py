"""Do the Triton kernels compile for every GPU generation, without a GPU here, to wide accesses and no local memory?"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")

ARCHITECTURES = [
    75, 90, 120, *(pytest.param(number, marks=pytest.mark.slow) for number in (80, 86, 89, 100, 103, 121))
]  # fmt: skip
Report = dict[str, list[dict[str, Any]]]
VARIANTS = ("90", "variants")


def compile_in_process(*arguments: str) -> Report:
    # A process of its own: in this one TRITON_INTERPRET has replaced the compiler.
    command = [sys.executable, "-m", "tests.kernels.compile_triton_kernels", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if "is not defined for option 'gpu-name'" in result.stderr:
        pytest.skip(f"this Triton's ptxas does not know sm_{arguments[0]}")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def aligned(architecture: int) -> tuple[str, ...]:
    return (str(architecture),) if architecture == 90 else (str(architecture), "brief")


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, ...], Future[Report]]]:
    """What the tests that were chosen need, compiled at the same time."""
    chosen = [item for item in request.session.items if item.path == request.path]
    needed = [
        aligned(item.callspec.params["architecture"]) if hasattr(item, "callspec") else VARIANTS for item in chosen
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        longest_first = sorted(needed, key=lambda arguments: arguments != VARIANTS)
        yield {arguments: pool.submit(compile_in_process, *arguments) for arguments in longest_first}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_aligned_tensors_get_16_byte_accesses_and_no_local_memory(
    architecture: int, reports: dict[tuple[str, ...], Future[Report]]
) -> None:
    for case, launched in reports[aligned(architecture)].result().items():
        for kernel in launched:
            assert kernel["local_bytes"] == kernel["local_accesses"] == 0, (case, kernel)
        # The tensors that fill memory; partial sums, parameters and the coarsest sub-bands may be narrower.
        assert any(16 in kernel["load_bytes"] for kernel in launched), (case, launched)
        assert any(16 in kernel["store_bytes"] for kernel in launched), (case, launched)
        names = ["weight", "bias", "scales", "weight_grad", "bias_grad", "scales_grad", "gain_shares", "coefficients"]
        small = {f"%{name}" for name in names}  # of the size of the channels; what fills memory has 64-bit offsets
        assert all(set(kernel["narrow_offsets"]) <= small for kernel in launched), (case, launched)
        if case.startswith("haar"):  # the image, whole; and no sub-band of bf16 or fp32 element by element
            sides = ("load_bytes", "store_bytes") if "analysis" in case else ("store_bytes", "load_bytes")
            image, sub_bands = ([kernel[side] for kernel in launched] for side in sides)
            assert all(min(widths) == 16 for widths in image), (case, launched)
            assert all(max(widths) == 16 and min(widths) >= 4 for widths in sub_bands), (case, launched)
            assert "fp32" not in case or all(min(widths) >= 8 for widths in sub_bands), (case, launched)


@pytest.mark.slow
def test_every_variant_compiles(reports: dict[tuple[str, ...], Future[Report]]) -> None:
    """Levels, dtypes, layouts, cascades, transposes, skips, and arguments that are 1, which Triton makes constants.

    A Haar transform of a single pixel, 16 times repeated in float64, spills a few registers; nothing else does.
    """
    report = reports[VARIANTS].result()
    assert len(report) > 200
    for case, launched in report.items():
        assert launched, case
        # Triton 3.6 sets 8 bytes aside in two of the variants, and never touches them.
        most = 128 if "fp64" in case and " 1x1," in case else 8
        assert all(one["local_bytes"] <= most and not one["local_accesses"] for one in launched), (case, launched)
