"""Does the CUDA C++ compile for every GPU generation, without a GPU here, to wide accesses and no local memory?"""

import re

import pytest

from litevae_kernels import nvrtc

from . import compile_cuda_kernels as compiler
from .machine_code import output, tool

ARCHITECTURES = [75, 80, 86, 89, 90, 100, 103, 120, 121]
# Bytes of the widest loads and stores, at least, of a call with aligned tensors. Half the width of the image or of the
# float32 weights have the sub-bands and the bfloat16 results.
WIDTHS = {
    "analysis": (16, 8),
    "synthesis": (8, 16),
    "smc_weight": (16, 8),
    "smc_weight backward": (16, 16),
    "group_norm_silu": (16, 16),
    "group_norm_silu backward": (16, 16),
}


def skip_without(*tools: str) -> None:
    try:
        nvrtc._version()
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs NVRTC and cuda-bindings ({error})")
    for name in tools:
        if tool(name) is None:
            pytest.skip(f"needs {name}, which the CUDA toolkit has, and triton's package in part")


def all_of(cases: dict[str, list[str]]) -> list[str]:
    return sorted({kernel for kernels in cases.values() for kernel in kernels})


@pytest.mark.parametrize(
    "architecture",
    [number if number in (75, 90, 120) else pytest.param(number, marks=pytest.mark.slow) for number in ARCHITECTURES],
)
@pytest.mark.parametrize("operator", compiler.OPERATORS)
def test_aligned_tensors_get_wide_accesses_and_no_local_memory(operator: str, architecture: int) -> None:
    skip_without("cuobjdump", "nvdisasm")
    _, known = nvrtc._nvrtc().nvrtcGetSupportedArchs()
    if architecture not in known:
        pytest.skip(f"NVRTC {nvrtc._version()} does not know sm_{architecture}")
    cases = compiler.launched_kernels(compiler.aligned_cases(operator))
    found = compiler.compiled_by_nvrtc(operator, all_of(cases), architecture)
    for case, kernels in cases.items():
        assert kernels, case
        resources = [found[kernel] for kernel in kernels]
        assert all(one.local_bytes == 0 for one in resources), (case, resources)
        call, _, tensors = case.partition(", ")
        if not tensors.startswith("uint8"):  # one byte an element
            widest = [max(one.load_bytes[0] for one in resources), max(one.store_bytes[0] for one in resources)]
            assert all(width >= least for width, least in zip(widest, WIDTHS[call], strict=True)), (case, resources)


@pytest.mark.slow
@pytest.mark.parametrize("operator", compiler.OPERATORS)
def test_every_variant_compiles_without_local_memory(operator: str) -> None:
    skip_without("cuobjdump", "nvdisasm")
    cases = compiler.launched_kernels(compiler.variant_cases(operator))
    assert len(cases) >= 32
    for kernel, resources in compiler.compiled_by_nvrtc(operator, all_of(cases), 90).items():
        assert resources.local_bytes == 0, (kernel, resources)


@pytest.mark.slow
@pytest.mark.parametrize("operator", compiler.OPERATORS)
def test_nvcc_agrees(operator: str) -> None:
    """The first kernels of the list, for every architecture that nvcc knows."""
    skip_without("nvcc")
    kernels = all_of(compiler.launched_kernels(compiler.aligned_cases(operator)))[::4]
    known = [number for number in ARCHITECTURES if f"compute_{number}\n" in output("nvcc", "--list-gpu-arch")]
    said = compiler.compiled_by_nvcc(operator, kernels, known)
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert spills == [("0", "0", "0")] * len(kernels) * len(known), said
