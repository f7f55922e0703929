"""Do the Triton kernels compile for every GPU generation, without a GPU here, to wide loads and no local memory?"""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")

ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
# Runs in a process of its own, because here TRITON_INTERPRET may have replaced the compiler.
PROGRAM = """
import json, re, sys
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from litevae_kernels.haar_dwt2d.triton_kernels import haar_dwt2d_bwd_kernel, haar_dwt2d_fwd_kernel
from litevae_kernels.smc_conv2d.triton_kernels import smc_weight_bwd_kernel, smc_weight_fwd_kernel

def compile_for(architecture, kernel, pointers, constants, floats, multiples_of_16):
    names = kernel.arg_names
    kinds = {name: "fp32" if name in floats else pointers.get(name, "i32") for name in names}
    signature = {name: "constexpr" if name in constants else kinds[name] for name in names}
    aligned = [name for name in names if name in pointers or name in multiples_of_16]
    source = ASTSource(
        fn=kernel, signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    ptx = compiled.asm["ptx"]
    return {
        "instructions": sorted(set(re.findall(r"(?:ld|st)\\.global\\.[a-z0-9.]+", ptx))),
        "local": len(re.findall(r"(?:ld|st)\\.local", ptx)), "cubin": len(compiled.asm["cubin"]),
    }

result = {}
architecture = int(sys.argv[1])
for dtype in ("fp32", "bf16"):
    levels = {f"level{l}": "*" + dtype for l in (1, 2, 3, 4)} | {"image": "*" + dtype, "low_copy": "*fp32"}
    tile = {"ROWS": 2, "COLUMNS": 16, "LEVELS": 3, "CHANNELS_LAST": False, "ARITHMETIC": tl.float32}
    sides = ["height", "width", "stride_b", "stride_c", "stride_h"]
    forward = tile | {"TRANSPOSE": False, "COPY_LOW": False, "stride_w": 1}
    backward = tile | {"TRANSPOSE": True, "FROM_COPY": False, "IMAGE_CHANNELS_LAST": False}
    result["haar_dwt2d_fwd " + dtype] = compile_for(
        architecture, haar_dwt2d_fwd_kernel, levels, forward, ["factor"], sides)
    result["haar_dwt2d_bwd " + dtype] = compile_for(
        architecture, haar_dwt2d_bwd_kernel, levels, backward, ["factor"], sides)
    row = {"BLOCK_I": 128, "TAPS": 16, "HAS_GAIN": True, "ARITHMETIC": tl.float32, "stride_k": 1}
    weights = {"weight": "*" + dtype, "scales": "*fp32", "gain": "*fp32", "result": "*" + dtype}
    result["smc_weight_fwd " + dtype] = compile_for(architecture, smc_weight_fwd_kernel, weights, row, ["eps"], [])
    shares = {"scales_shares": "*fp32", "gain_shares": "*fp32", "grad": "*" + dtype, "weight_grad": "*" + dtype}
    result["smc_weight_bwd " + dtype] = compile_for(
        architecture, smc_weight_bwd_kernel, weights | shares, row, ["eps"], [])
print(json.dumps(result))
"""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles(architecture: int) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(architecture)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert len(report) == 8
    for name, kernel in report.items():
        assert kernel["cubin"] > 0, name
        assert kernel["local"] == 0, name
    for dtype in ("fp32", "bf16"):
        assert "ld.global.v4.b32" in report[f"haar_dwt2d_fwd {dtype}"]["instructions"]
        assert "st.global.v4.b32" in report[f"haar_dwt2d_bwd {dtype}"]["instructions"]
