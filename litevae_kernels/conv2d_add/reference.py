"""The definition of `conv2d_add`, in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def conv2d_add(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """residual + conv2d(x, weight, bias, padding=padding), in the dtype that PyTorch gives the sum."""
    convolved = F.conv2d(x, weight, bias, padding=padding)  # [B, O, H', W'], in autocast's dtype where that is on
    if residual.dtype != convolved.dtype or torch._C._are_functorch_transforms_active():
        return residual + convolved
    return convolved.add_(residual)  # one tensor of the result's size less
