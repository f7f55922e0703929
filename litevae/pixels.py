"""Pixels of 8 bits as the numbers that networks and losses take. [image] -> DWT"""

import torch
from torch import Tensor


def to_float(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [..., H, W] to [-1, 1]: p / 127.5 - 1."""
    return pixels.to(dtype).div_(127.5).sub_(1.0)
