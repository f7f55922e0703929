"""What the compiler makes of the Triton kernels, on a machine without a GPU: registers, memory, access widths.

python -m tests.kernels.compile_triton_kernels 90             JSON: every kernel launched for aligned inputs, for sm_90
python -m tests.kernels.compile_triton_kernels 90 brief       the same for fewer kinds of inputs: still every kernel
python -m tests.kernels.compile_triton_kernels 90 variants    the same for every flag, layout and unaligned size

The launchers run as they would on a GPU, on tensors of the CPU, up to the launch: so the arguments, what Triton makes
constant and what it knows to be divisible are the real ones.
"""

import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
from torch import Tensor

from benchmarks.harness.recording_driver import Launch, RecordingDriver
from litevae_kernels.group_norm_silu import triton_backend as group_norm_silu
from litevae_kernels.haar_dwt2d import triton_backend as haar_dwt2d
from litevae_kernels.haar_dwt2d.geometry import level_sizes
from litevae_kernels.smc_conv2d import triton_backend as smc_conv2d

from . import machine_code

Case = Callable[[], object]
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
BRIEF = [("fp32", "NCHW"), ("bf16", "channels_last")]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


def describe(launch: Launch) -> dict[str, Any]:
    compiled, ptx = launch.compiled, launch.compiled.asm["ptx"]
    code = machine_code.read(compiled.asm["cubin"], compiled.metadata.num_warps, compiled.metadata.shared)
    return {
        "kernel": launch.kernel,
        "registers": code.registers,
        "local_bytes": code.local_bytes,
        "local_accesses": len(re.findall(r"(?:ld|st)\.local", ptx)),
        "shared_bytes": code.shared_bytes,
        "load_bytes": widths(ptx, "ld"),
        "store_bytes": widths(ptx, "st"),
        "narrow_offsets": narrow_offsets(compiled.asm["ttir"]),
    }


def widths(ptx: str, kind: str) -> list[int]:
    """Bytes that a thread's accesses to global memory have, widest first."""
    accesses = re.findall(rf"{kind}\.global(?:\.[a-z0-9_:]+)*?(?:\.v(\d))?\.[a-z](\d+)\s", ptx)
    return sorted({int(vector or 1) * int(bits) // 8 for vector, bits in accesses}, reverse=True)


def narrow_offsets(ttir: str) -> list[str]:
    """Arguments of a kernel to whose address something of 32 bits is added first."""
    arguments = set(re.findall(r"(%\w+): !tt\.ptr", ttir))
    argument_of = {argument: argument for argument in arguments}
    argument_of |= {name: base for name, base in re.findall(r"(%\w+) = tt\.splat (%\w+) :", ttir) if base in arguments}
    additions = re.findall(r"tt\.addptr (%\w+), %\w+ : [^,]+, (?:tensor<[\dx]*)?(i\d+)", ttir)
    return sorted({argument_of[base] for base, bits in additions if base in argument_of and bits == "i32"})


def haar_cases(
    name: str, image: Tensor, levels: int, dtype: torch.dtype, transpose: bool = False
) -> Iterator[tuple[str, Case]]:
    size = (image.shape[-2], image.shape[-1])
    memory_format = torch.channels_last if "channels_last" in name else torch.contiguous_format
    pyramid = [
        torch.empty((image.shape[0], 4 * image.shape[1], h, w), dtype=dtype, memory_format=memory_format)
        for h, w in level_sizes(*size, levels)[1:]
    ]
    yield (
        f"haar_dwt2d analysis, {name}",
        lambda: haar_dwt2d.analysis(image, levels, 0.5, dtype, transpose, memory_format),
    )
    yield (
        f"haar_dwt2d synthesis, {name}",
        lambda: haar_dwt2d.synthesis(pyramid, *size, 0.5, torch.float32 if image.dtype == torch.uint8 else image.dtype),
    )


def smc_cases(name: str, weight: Tensor, has_gain: bool) -> Iterator[tuple[str, Case]]:
    scales = torch.ones(weight.shape[1])
    gain = torch.ones(()) if has_gain else None
    yield f"smc_weight, {name}", lambda: smc_conv2d.smc_weight(weight, scales, gain, 1e-8, weight.dtype)
    yield (
        f"smc_weight backward, {name}",
        lambda: smc_conv2d.smc_weight_backward(torch.empty_like(weight), weight, scales, gain, 1e-8),
    )


def group_norm_cases(
    name: str, x: Tensor, skip: Tensor | None, num_groups: int, affine: bool = True
) -> Iterator[tuple[str, Case]]:
    channels = x.shape[1] + (0 if skip is None else skip.shape[1])
    weight = bias = torch.ones(channels) if affine else None
    statistic = torch.ones(x.shape[0], num_groups, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    yield (
        f"group_norm_silu, {name}",
        lambda: group_norm_silu.group_norm_silu(x, num_groups, weight, bias, 1e-6, skip),
    )
    grad = torch.empty((x.shape[0], channels, *x.shape[2:]), dtype=x.dtype).to(
        memory_format=torch.contiguous_format if x.is_contiguous() else torch.channels_last
    )
    yield (
        f"group_norm_silu backward, {name}",
        lambda: group_norm_silu.group_norm_silu_backward(grad, x, num_groups, weight, bias, statistic, statistic, skip),
    )


def aligned_cases(kinds: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Case]]:
    for dtype, layout in kinds:
        name, memory_format = f"{dtype} {layout}", FORMATS[layout]
        image = torch.empty((2, 3, 256, 256), dtype=DTYPES[dtype]).to(memory_format=memory_format)
        yield from haar_cases(name, image, 3, DTYPES[dtype])
        weight = torch.empty((4, 256, 3, 3), dtype=DTYPES[dtype]).to(memory_format=memory_format)
        yield from smc_cases(name, weight, True)
        x = torch.empty((2, 96, 64, 64), dtype=DTYPES[dtype]).to(memory_format=memory_format)
        yield from group_norm_cases(name, x, None, 32)
        yield from group_norm_cases(f"{name} with skip", x, torch.empty_like(x[:, :64]), 32)
    image = torch.empty((2, 3, 256, 256), dtype=torch.uint8)
    yield from haar_cases("uint8 to bf16 NCHW", image, 3, torch.bfloat16)
    yield from haar_cases("uint8 NCHW to bf16 channels_last", image, 3, torch.bfloat16)


def variant_cases() -> Iterator[tuple[str, Case]]:
    sizes = [(1, 1), (1, 40), (224, 224), (67, 129)]
    for index, (dtype, layout) in enumerate((dtype, layout) for dtype in DTYPES for layout in FORMATS):
        memory_format, kind, name = FORMATS[layout], DTYPES[dtype], f"{dtype} {layout}"
        for height, width in sizes:
            image = torch.empty((2, 3, height, width), dtype=kind).to(memory_format=memory_format)
            for levels in {1 + index % 4, 5}:
                for transpose in (False, True):
                    variant = f"{name} {height}x{width}, {levels} levels, transpose {transpose}"
                    yield from haar_cases(variant, image, levels, kind, transpose)
        for shape in [(1, 1, 1, 1), (4, 70, 1, 1), (3, 5, 5, 3), (2, 2000, 3, 3)]:
            weight = torch.empty(shape, dtype=kind).to(memory_format=memory_format)
            yield from smc_cases(f"{name} {shape}", weight, index % 2 == 0)
        for channels, skipped, groups, side in [(1, 0, 1, 1), (48, 0, 24, 9), (20, 12, 32, 32), (320, 160, 32, 8)]:
            x = torch.empty((2, channels, side, side), dtype=kind).to(memory_format=memory_format)
            skip = torch.empty((2, skipped, side, side), dtype=kind).to(memory_format=memory_format)
            variant = f"{name} {channels}+{skipped} {side}x{side}"
            yield from group_norm_cases(variant, x, skip if skipped else None, groups, affine=index % 2 == 0)


def report(architecture: int, cases: Iterator[tuple[str, Case]]) -> dict[str, list[dict[str, Any]]]:
    driver = RecordingDriver(architecture, compiles=True)
    kernels = {}
    with driver.active():
        for name, launch in cases:
            driver.launches.clear()
            launch()
            kernels[name] = [describe(launched) for launched in driver.launches]
    return kernels


if __name__ == "__main__":
    kinds = BRIEF if "brief" in sys.argv else list(itertools.product(("fp32", "bf16"), FORMATS))
    kernels = report(int(sys.argv[1]), variant_cases() if "variants" in sys.argv else aligned_cases(kinds))
    print(json.dumps(kernels))
