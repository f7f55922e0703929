"""What is each operator in plain PyTorch, for programs that leave Python and this package behind?

[image -> DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses

Pure formulas: nothing is written in place, no side is baked in, and ONNX and AOTInductor know what they call. Values
and shapes are the operators'. Results are in NCHW: an exported graph has its own order in memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litevae_kernels import formats
from litevae_kernels.group_norm_silu import ops as group_norm_silu_ops
from litevae_kernels.haar_dwt2d import ops as haar_dwt2d_ops
from litevae_kernels.smc_conv2d import ops as smc_conv2d_ops


def export_decompositions() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Every forward operator of this package with its formula, for `torch.export.ExportedProgram.run_decompositions`.

    `smc_conv2d` is in a graph as `smc_weight` and PyTorch's convolution; `conv2d_add` as PyTorch's operators alone.

    Example:
        >>> formula = export_decompositions()[torch.ops.litevae_kernels.haar_idwt2d.default]
        >>> bands = torch.randn(1, 4, 2, 3)
        >>> torch.allclose(formula([bands], 4, 6, 0.5), haar_idwt2d(bands), atol=1e-6)
        True
    """
    return {
        haar_dwt2d_ops.haar_dwt2d: _haar_dwt2d,
        haar_dwt2d_ops.haar_idwt2d: _haar_idwt2d,
        group_norm_silu_ops.group_norm_silu: _group_norm_silu,
        smc_conv2d_ops.smc_weight: _smc_weight,
    }


def _haar_dwt2d(
    image: Tensor,
    levels: int,
    factor: float,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.preserve_format,
    backend: str | None = None,
) -> list[Tensor]:
    """Sums and differences of a, b, c, d of each 2x2 block; an odd side repeats its last row or column."""
    low = image.to(formats.arithmetic_dtype(image.dtype, dtype))  # [B, C, H, W]
    if image.dtype == torch.uint8:
        low = low / 127.5 - 1.0
    pyramid = []
    for _ in range(levels):
        low = low if low.shape[-2] % 2 == 0 else torch.cat([low, low[..., -1:, :]], dim=-2)
        low = low if low.shape[-1] % 2 == 0 else torch.cat([low, low[..., -1:]], dim=-1)
        a, b = low[..., 0::2, 0::2], low[..., 0::2, 1::2]  # [B, C, h, w] each
        c, d = low[..., 1::2, 0::2], low[..., 1::2, 1::2]
        low = factor * (a + b + c + d)
        details = [factor * (a + b - c - d), factor * (a - b + c - d), factor * (a - b - c + d)]
        pyramid.append(torch.cat([low, *details], dim=1).to(dtype))  # [B, 4C, h, w]
    return pyramid


def _haar_idwt2d(
    pyramid: Sequence[Tensor], height: int, width: int, factor: float, backend: str | None = None
) -> Tensor:
    """Each 2x2 block from L H V D, the coarsest level first; the surplus row or column of an odd side is dropped."""
    dtype = pyramid[0].dtype
    sides = [(height, width), *(level.shape[-2:] for level in pyramid)]
    low = None
    for level in range(len(pyramid), 0, -1):
        packed_low, h, v, d = pyramid[level - 1].to(formats.arithmetic_dtype(dtype)).chunk(4, dim=1)  # [B, C, h, w]
        low = packed_low if low is None else low
        blocks = torch.cat([low + h + v + d, low + h - v - d, low - h + v - d, low - h - v + d], dim=1)
        batch, channels, rows, columns = low.shape
        grid = (factor * blocks).reshape(batch, 2, 2, channels, rows, columns).permute(0, 3, 4, 1, 5, 2)
        low = grid.reshape(batch, channels, 2 * rows, 2 * columns)  # [B, C, 2h, 2w]
        low = low[..., : sides[level - 1][0], : sides[level - 1][1]]
    assert low is not None
    return low.to(dtype)


def _group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    skip: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """SiLU of PyTorch's GroupNorm of concat(x, skip), in float32 for half precision; mean and rstd [B, G].

    PyTorch's rounds x rstd and mean rstd apart: where a mean is n standard deviations, it loses a factor n of
    precision, which the operator does not.
    """
    arithmetic = formats.arithmetic_dtype(x.dtype)
    whole = (x if skip is None else torch.cat([x, skip], dim=1)).to(arithmetic)  # [B, C, H, W]
    batch, channels, height, width = whole.shape
    weight, bias = (None if parameter is None else parameter.to(arithmetic) for parameter in (weight, bias))
    sizes = batch, channels, height * width, num_groups
    z, mean, rstd = torch.native_group_norm(whole.contiguous(), weight, bias, *sizes, eps)
    return F.silu(z).to(x.dtype), mean, rstd


def _smc_weight(
    weight: Tensor,
    scales: Tensor,
    gain: Tensor | None,
    eps: float,
    dtype: torch.dtype,
    backend: str | None = None,
) -> Tensor:
    """Eq. 3: gain * s w / sqrt(sum over i,k of (s w)^2 + eps)."""
    arithmetic = formats.arithmetic_dtype(weight.dtype)
    modulated = scales.to(arithmetic)[None, :, None, None] * weight.to(arithmetic)  # [O, I, kh, kw]
    norms = torch.sqrt(modulated.square().sum(dim=(1, 2, 3), keepdim=True) + eps)  # [O, 1, 1, 1]
    demodulated = modulated / norms
    return (demodulated if gain is None else gain.to(arithmetic) * demodulated).to(dtype)
