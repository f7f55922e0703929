"""What do NVRTC and nvcc make of the CUDA kernels, on a machine without a GPU?

The launchers run as they would on a GPU, on tensors of the CPU, up to the launch: so the kernels are those that are
really launched. All of an operator's are compiled in one program.
"""

import importlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from litevae_kernels import nvrtc

from .machine_code import output

OPERATORS = sorted(path.parent.name for path in nvrtc.sources().glob("*/cuda.cu"))
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}

Case = tuple[str, Callable[[], object]]


class Resources(NamedTuple):
    registers: int
    shared_bytes: int
    local_bytes: int
    load_bytes: tuple[int, ...]  # that a thread's accesses to global memory have, widest first
    store_bytes: tuple[int, ...]


def aligned_cases(operator: str) -> Iterator[Case]:
    """Calls whose big tensors allow 16 bytes an access."""
    for layout, memory_format in FORMATS.items():
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            if operator == "haar_dwt2d":
                yield from haar_cases(f"{name} {layout}", (256, 256), dtype, dtype, 3, memory_format)
            if operator == "smc_conv2d":
                yield from smc_cases(f"{name} {layout}", (4, 256, 3, 3), dtype, dtype, memory_format)
            if operator == "group_norm_silu":
                yield from group_norm_cases(f"{name} {layout}", 96, 0, 32, 64, dtype, memory_format)
                yield from group_norm_cases(f"{name} {layout} with skip", 96, 64, 32, 64, dtype, memory_format)
        if operator == "haar_dwt2d":
            yield from haar_cases(f"uint8 to bf16 {layout}", (256, 256), torch.uint8, torch.bfloat16, 3, memory_format)
        if operator == "smc_conv2d":
            yield from smc_cases(f"fp32 to bf16 {layout}", (4, 256, 3, 3), torch.float32, torch.bfloat16, memory_format)


def variant_cases(operator: str) -> Iterator[Case]:
    """The rest: tiny and unaligned sizes, rows longer than a tile, every dtype and level."""
    for layout, memory_format in FORMATS.items():
        for index, (name, dtype) in enumerate(DTYPES.items()):
            variant, other = f"{name} {layout}", list(DTYPES.values())[index - 1]
            if operator == "haar_dwt2d":
                # Five levels are a launch of four and one of one.
                yield from haar_cases(f"{variant}, 5 levels", (67, 129), dtype, other, 5, memory_format)
                yield from haar_cases(f"{variant}, 1x1", (1, 1), torch.uint8, dtype, 2, memory_format)
            if operator == "smc_conv2d":
                for shape in [(2, 3, 1, 1), (2, 5, 5, 3), (2, 64, 1, 1), (2, 1200, 3, 3)]:
                    yield from smc_cases(f"{variant} {shape}", shape, dtype, dtype, memory_format)
                yield from smc_cases(f"{variant} to another", (2, 80, 3, 3), dtype, other, memory_format)
            if operator == "group_norm_silu":
                for sizes in [(1, 0, 1, 1), (48, 0, 24, 9), (20, 12, 32, 32), (320, 160, 32, 8)]:
                    yield from group_norm_cases(f"{variant} {sizes}", *sizes, dtype, memory_format)


def haar_cases(
    name: str, size: tuple[int, int], image_dtype: torch.dtype, dtype: torch.dtype, levels: int,
    memory_format: torch.memory_format,
) -> Iterator[Case]:  # fmt: skip
    cuda = importlib.import_module("litevae_kernels.haar_dwt2d.cuda")
    image = torch.empty((2, 3, *size), dtype=image_dtype).to(memory_format=memory_format)
    yield f"analysis, {name}", lambda: cuda.analysis(image, levels, 0.5, dtype)
    sides, pyramid = size, []
    for _ in range(levels):
        sides = ((sides[0] + 1) // 2, (sides[1] + 1) // 2)
        pyramid.append(torch.empty((2, 12, *sides), dtype=dtype).to(memory_format=memory_format))
    restored = torch.float32 if image_dtype == torch.uint8 else image_dtype
    yield f"synthesis, {name}", lambda: cuda.synthesis(pyramid, *size, 0.5, restored)


def smc_cases(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, result: torch.dtype, memory_format: torch.memory_format
) -> Iterator[Case]:
    cuda = importlib.import_module("litevae_kernels.smc_conv2d.cuda")
    weight = torch.empty(shape, dtype=dtype).to(memory_format=memory_format)
    scales, gain, grad = torch.ones(shape[1], dtype=dtype), torch.ones(()), torch.empty_like(weight, dtype=result)
    yield f"smc_weight, {name}", lambda: cuda.smc_weight(weight, scales, None, 1e-8, result)
    # A gain of another dtype: the parameters are then in that of the arithmetic.
    yield f"smc_weight backward, {name}", lambda: cuda.smc_weight_backward(grad, weight, scales, gain, 1e-8)


def group_norm_cases(
    name: str, channels: int, skipped: int, num_groups: int, side: int, dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Iterator[Case]:  # fmt: skip
    cuda = importlib.import_module("litevae_kernels.group_norm_silu.cuda")

    def values(channels: int) -> Tensor:
        return torch.empty((2, channels, side, side), dtype=dtype).to(memory_format=memory_format)

    x, skip, grad = values(channels), values(skipped) if skipped else None, values(channels + skipped)
    weight = bias = torch.ones(channels + skipped, dtype=dtype)
    statistic = torch.ones(2, num_groups, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    yield f"group_norm_silu, {name}", lambda: cuda.group_norm_silu(x, num_groups, weight, bias, 1e-6, skip)
    arguments = (grad, x, num_groups, weight, bias, statistic, statistic, skip)
    yield f"group_norm_silu backward, {name}", lambda: cuda.group_norm_silu_backward(*arguments)


def launched_kernels(cases: Iterator[Case]) -> dict[str, list[str]]:
    """The kernels that every case launches, in that order."""
    kernels: dict[str, list[str]] = {}
    before = nvrtc.host_launch
    try:
        for name, call in cases:
            names = kernels[name] = []
            nvrtc.host_launch = lambda operator, kernel, *_, names=names: names.append(kernel)
            call()
    finally:
        nvrtc.host_launch = before
    return kernels


def compiled_by_nvrtc(operator: str, kernels: Sequence[str], architecture: int) -> dict[str, Resources]:
    """Needs NVIDIA's cuobjdump and nvdisasm."""
    compiled = nvrtc.compile_kernels(operator, kernels, f"sm_{architecture}")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernels.cubin")
        cubin.write_bytes(compiled.cubin)
        usage, code = output("cuobjdump", "--dump-resource-usage", cubin), output("nvdisasm", "-c", cubin)
    sections = dict(re.findall(r"\.section\s+\.text\.(\w+),(.*?)(?=\.section\s|\Z)", code, flags=re.DOTALL))
    found = {}
    for kernel, symbol in zip(kernels, compiled.symbols, strict=True):
        (line,) = re.findall(rf"Function {symbol}:\s*(.*)", usage)
        numbers = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
        found[kernel] = Resources(
            numbers["REG"],
            numbers["SHARED"],
            numbers["STACK"] + numbers["LOCAL"],
            _widths("LDG", sections[symbol]),
            _widths("STG", sections[symbol]),
        )
    return found


def compiled_by_nvcc(operator: str, kernels: Sequence[str], architectures: Sequence[int]) -> str:
    """What ptxas says of the kernels, all of them for every architecture."""
    addresses = ",\n".join(f"reinterpret_cast<const void*>(&{kernel})" for kernel in kernels)
    text = f'#include "{operator}/cuda.cu"\nextern const void* const kernels[] = {{\n{addresses}\n}};\n'
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernels.cu")
        path.write_text(text)
        options = ["-std=c++17", "-Xptxas", "-v", "-I", nvrtc.sources(), *targets]
        return output("nvcc", *options, "-c", path, "-o", f"{path}.o")


def _widths(instruction: str, code: str) -> tuple[int, ...]:
    narrow = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
    accesses = re.findall(rf"\b{instruction}(\.[\w.]+)", code)
    widths = {next((narrow[part] for part in access.split(".") if part in narrow), 4) for access in accesses}
    return tuple(sorted(widths, reverse=True))
