"""Pixels of 8 bits as the numbers that networks and losses take, and back. [image] -> DWT"""

import torch
from torch import Tensor


def to_float(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [..., H, W] to [-1, 1]: p / 127.5 - 1."""
    return pixels.to(dtype).div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Floating point in [-1, 1] (clamped) to uint8 of the same shape: (x + 1) * 127.5 rounded to the nearest."""
    return images.detach().float().clamp(-1, 1).add_(1.0).mul_(127.5).round_().to(torch.uint8)
