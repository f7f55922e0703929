"""Compiles the Triton kernels without a GPU, and prints what they became as JSON.

python compile_triton_kernels.py 90             every kernel, as for aligned images
python compile_triton_kernels.py 90 variants    the Haar kernels with every flag and kind of argument
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from litevae_kernels.haar_dwt2d.triton_kernels import haar_dwt2d_bwd_kernel, haar_dwt2d_fwd_kernel
from litevae_kernels.smc_conv2d.triton_kernels import smc_weight_bwd_kernel, smc_weight_fwd_kernel

ARITHMETIC = {"fp32": tl.float32, "bf16": tl.float32, "fp16": tl.float32, "fp64": tl.float64}

ONES = ([], ["height"], ["width"], ["height", "width", "channels", "tiles", "tiles_w"])


def compile_for(
    architecture: int,
    kernel: Any,
    pointers: dict[str, str],
    constants: dict[str, Any],
    multiples_of_16: Sequence[str] = (),
    ones: Sequence[str] = (),
) -> dict[str, Any]:
    """`ones` are arguments that are 1, which Triton makes constants."""
    names = kernel.arg_names
    constants = constants | dict.fromkeys(ones, 1)
    kinds = {name: "fp32" if name in ("factor", "eps") else pointers.get(name, "i32") for name in names}
    aligned = [name for name in names if name in pointers or name in multiples_of_16]
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else kinds[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    ptx = compiled.asm["ptx"]
    return {
        "instructions": sorted(set(re.findall(r"(?:ld|st)\.global\.[a-z0-9.]+", ptx))),
        "local": len(re.findall(r"(?:ld|st)\.local", ptx)),
        "cubin": len(compiled.asm["cubin"]),
    }


def haar_pointers(dtype: str) -> dict[str, str]:
    levels = {f"level{level}": "*" + dtype for level in (1, 2, 3, 4)}
    return {**levels, "image": "*" + dtype, "low_copy": "*fp64" if dtype == "fp64" else "*fp32"}


def compile_kernels(architecture: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for dtype in ("fp32", "bf16"):
        haar = haar_pointers(dtype)
        tile = {"ROWS": 2, "COLUMNS": 16, "LEVELS": 3, "CHANNELS_LAST": False, "ARITHMETIC": tl.float32}
        sides = ["height", "width", "stride_b", "stride_c", "stride_h"]
        forward = tile | {"TRANSPOSE": False, "COPY_LOW": False, "stride_w": 1}
        yield f"haar_dwt2d_fwd {dtype}", compile_for(architecture, haar_dwt2d_fwd_kernel, haar, forward, sides)
        backward = tile | {"TRANSPOSE": True, "FROM_COPY": False, "IMAGE_CHANNELS_LAST": False}
        yield f"haar_dwt2d_bwd {dtype}", compile_for(architecture, haar_dwt2d_bwd_kernel, haar, backward, sides)
        row = {"BLOCK_I": 128, "TAPS": 16, "HAS_GAIN": True, "ARITHMETIC": tl.float32, "stride_k": 1}
        smc = {"weight": "*" + dtype, "scales": "*fp32", "gain": "*fp32", "result": "*" + dtype}
        yield f"smc_weight_fwd {dtype}", compile_for(architecture, smc_weight_fwd_kernel, smc, row)
        smc |= {"scales_shares": "*fp32", "gain_shares": "*fp32", "grad": "*" + dtype, "weight_grad": "*" + dtype}
        yield f"smc_weight_bwd {dtype}", compile_for(architecture, smc_weight_bwd_kernel, smc, row)


def compile_haar_variants(architecture: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for levels in (1, 2, 3, 4):
        for dtype, arithmetic in ARITHMETIC.items():
            haar, transpose, channels_last = haar_pointers(dtype), levels % 2 == 0, dtype in ("bf16", "fp64")
            tile = {"LEVELS": levels, "ROWS": 16 >> levels, "COLUMNS": 128 >> levels, "ARITHMETIC": arithmetic}
            tile |= {"CHANNELS_LAST": channels_last}
            for cascade in (False, True):
                forward = tile | {"TRANSPOSE": transpose, "COPY_LOW": cascade}
                backward = tile | {"TRANSPOSE": not transpose, "FROM_COPY": cascade}
                backward |= {"IMAGE_CHANNELS_LAST": channels_last}
                for ones in ONES if dtype == "fp32" else ([],):
                    name = f"{dtype}, {levels} levels, cascade {cascade}, ones {ones}"
                    yield f"fwd {name}", compile_for(architecture, haar_dwt2d_fwd_kernel, haar, forward, ones=ones)
                    yield f"bwd {name}", compile_for(architecture, haar_dwt2d_bwd_kernel, haar, backward, ones=ones)


if __name__ == "__main__":
    chosen = compile_haar_variants if "variants" in sys.argv else compile_kernels
    print(json.dumps(dict(chosen(int(sys.argv[1])))))
