"""The definition of GroupNorm+SiLU, in plain PyTorch; also the backend that runs on any device.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from litevae_kernels.formats import arithmetic_dtype, stored_like


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    skip: Tensor | None,
    keeps_statistics: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """silu((concat(x, skip) - mean) * rstd * weight + bias), and the mean and rstd of every group.

    Without `keeps_statistics` a backend may return None for these two.
    """
    mean, rstd = statistics(x, num_groups, eps, skip)  # [B, G]
    z = _affine(_normalised(_whole(x, skip), mean, rstd), weight, bias)  # [B, C, H, W]
    return stored_like(F.silu(z), x.dtype, like=x), mean, rstd


def statistics(x: Tensor, num_groups: int, eps: float, skip: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(var + eps) of every group, var biased and about the mean; finite for groups of no elements."""
    groups = _in_groups(_whole(x, skip), num_groups)  # [B, G, n]
    elements = max(groups.shape[2], 1)
    mean = groups.sum(2) / elements  # [B, G]
    variance = (groups - mean[:, :, None]).square().sum(2) / elements
    return mean, torch.rsqrt(variance + eps)


def group_norm_silu_backward(
    grad: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (x, weight, bias, skip) in their dtypes. With xhat = (x - mean) rstd, z = w xhat + b, s = sigmoid z:

    dz = grad s (1 + z (1 - s)),   db = sum over B,H,W of dz,   dw = sum over B,H,W of (dz xhat),
    dx = rstd (w dz - mean over the group of (w dz) - xhat * mean over the group of (w dz xhat)).

    Built from differentiable operations, for the second derivative, which also goes through `statistics`.
    The gradient of an absent input is an empty tensor of its own: outputs of an operator must not alias.
    """
    whole = _whole(x, skip)  # [B, C, H, W]
    xhat = _normalised(whole, mean, rstd)
    z = _affine(xhat, weight, bias)
    s = torch.sigmoid(z)
    dz = grad.to(whole.dtype) * s * (1 + z * (1 - s))
    scaled = _affine(dz, weight, None)
    elements = max(whole[0:1].numel() // num_groups, 1)
    c1 = _in_groups(scaled, num_groups).sum(2) / elements  # [B, G]
    c2 = _in_groups(scaled * xhat, num_groups).sum(2) / elements
    dx = _per_channel(rstd, whole) * (scaled - _per_channel(c1, whole) - xhat * _per_channel(c2, whole))
    x_channels = x.shape[1]
    return (
        stored_like(dx[:, :x_channels], x.dtype, like=x),
        x.new_empty(0) if weight is None else (dz * xhat).sum((0, 2, 3)).to(weight.dtype),
        x.new_empty(0) if bias is None else dz.sum((0, 2, 3)).to(bias.dtype),
        x.new_empty(0) if skip is None else stored_like(dx[:, x_channels:], skip.dtype, like=x),
    )


def _whole(x: Tensor, skip: Tensor | None) -> Tensor:
    arithmetic = arithmetic_dtype(x.dtype)
    return x.to(arithmetic) if skip is None else torch.cat([x, skip], dim=1).to(arithmetic)  # [B, C1 + C2, H, W]


def _in_groups(whole: Tensor, num_groups: int) -> Tensor:
    batch, channels, height, width = whole.shape
    return whole.reshape(batch, num_groups, channels // num_groups * height * width)  # [B, G, n]


def _per_channel(values: Tensor, whole: Tensor) -> Tensor:
    channels_per_group = whole.shape[1] // values.shape[1]
    return values.repeat_interleave(channels_per_group, dim=1)[:, :, None, None]  # [B, G] -> [B, C, 1, 1]


def _normalised(whole: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    return (whole - _per_channel(mean, whole)) * _per_channel(rstd, whole)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x = x * weight.to(x.dtype)[:, None, None]
    return x if bias is None else x + bias.to(x.dtype)[:, None, None]
