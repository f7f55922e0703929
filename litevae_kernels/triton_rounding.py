"""Rounding of a Triton kernel's result to the dtype it is stored in."""

import triton
import triton.language as tl


@triton.jit
def rounded(x, DTYPE: tl.constexpr):
    if tl.bfloat16 == DTYPE:
        x = x.to(tl.float32)  # Triton has no conversion from float64 to bfloat16
    return x.to(DTYPE)
