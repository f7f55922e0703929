"""The definition of the Haar DWT, in plain PyTorch; also the backend that runs on any device.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

Both public functions and all their derivatives consist of two linear maps and their transposes:

    analysis(image)      the DWT;      with `transpose` that of synthesis, the gradient of the inverse DWT
    synthesis(pyramid)   the inverse;  with `transpose` that of analysis, the gradient of the DWT
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from litevae_kernels.formats import arithmetic_dtype, stored, stored_like
from litevae_kernels.haar_dwt2d.geometry import level_sizes, result_format, values_of


def analysis(
    image: Tensor,
    levels: int,
    factor: float,
    dtype: torch.dtype,
    transpose: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> list[Tensor]:
    """Image [B, C, H, W] -> packed sub-bands, level 1 first: [B, 4C, ceil(H/2^l), ceil(W/2^l)], L H V D.

    For each 2x2 block (a b / c d), L = factor * (a + b + c + d) and so on; L is the next level's image.
    An odd side is extended by repeating its last row or column. The transpose of synthesis extends by zeros instead,
    since the inverse drops that row, and returns L of the last level only, since the inverse reads no other.
    """
    low = values_of(image, arithmetic_dtype(image.dtype, dtype))  # [B, C, H, W]
    pyramid = []
    for level in range(1, levels + 1):
        extended = _extend_to_even(low, "constant" if transpose else "replicate")  # [B, C, 2h, 2w]
        a, b, c, d = _blocks(extended)  # [B, C, h, w] each
        low = factor * (a + b + c + d)
        details = [factor * (a + b - c - d), factor * (a - b + c - d), factor * (a - b - c + d)]
        hides_low = transpose and level < levels
        packed = torch.cat([torch.zeros_like(low) if hides_low else low, *details], dim=1)  # [B, 4C, h, w]
        pyramid.append(stored(packed, dtype, result_format(image, memory_format)))
    return pyramid


def synthesis(
    pyramid: Sequence[Tensor], height: int, width: int, factor: float, dtype: torch.dtype, transpose: bool = False
) -> Tensor:
    """Packed sub-bands, level 1 first -> image [B, C, height, width].

    a = factor * (L + H + V + D) and so on, from the coarsest level up. Where a side of the result is odd, the surplus
    last row or column is dropped. The transpose of analysis adds it to the last one instead, from which analysis
    repeated it, and adds the L of every level, since analysis returns all of them.
    """
    sizes = level_sizes(height, width, len(pyramid))
    low = None
    for level in range(len(pyramid), 0, -1):
        packed = pyramid[level - 1].to(arithmetic_dtype(pyramid[0].dtype, dtype))  # [B, 4C, h, w]
        packed_low, h, v, d = packed.chunk(4, dim=1)  # [B, C, h, w] each
        if low is None:
            low = packed_low
        elif transpose:
            low = low + packed_low
        blocks = [low + h + v + d, low + h - v - d, low - h + v - d, low - h - v + d]
        finer = factor * _interleave(blocks)  # [B, C, 2h, 2w]
        low = _finish_odd(finer, *sizes[level - 1], fold=transpose)  # the last row or column less if odd
    assert low is not None
    return stored_like(low, dtype, like=pyramid[0])


def _extend_to_even(x: Tensor, mode: str) -> Tensor:
    height, width = x.shape[-2:]
    if x.numel() == 0:  # F.pad refuses empty tensors in replicate mode
        return x.new_zeros(*x.shape[:2], height + height % 2, width + width % 2)
    return F.pad(x, (0, width % 2, 0, height % 2), mode=mode)


def _blocks(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]


def _interleave(blocks: Sequence[Tensor]) -> Tensor:
    a, b, c, d = blocks  # [B, C, h, w] each
    top, bottom = torch.stack([a, b], dim=-1).flatten(-2), torch.stack([c, d], dim=-1).flatten(-2)  # [B, C, h, 2w]
    return torch.stack([top, bottom], dim=-2).flatten(-3, -2)  # [B, C, 2h, 2w]


def _finish_odd(x: Tensor, height: int, width: int, fold: bool) -> Tensor:
    """Crops to (height, width); `fold` adds what is cropped to the last row and column."""
    if fold and x.shape[-1] > width:
        x = torch.cat([x[..., : width - 1], x[..., width - 1 :].sum(-1, keepdim=True)], dim=-1)
    if fold and x.shape[-2] > height:
        x = torch.cat([x[..., : height - 1, :], x[..., height - 1 :, :].sum(-2, keepdim=True)], dim=-2)
    return x[..., :height, :width]
