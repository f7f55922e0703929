"""The definition of the self-modulated weight, in plain PyTorch; also the backend for any device.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses
"""

import torch
from torch import Tensor

from litevae_kernels.formats import arithmetic_dtype, stored_like


def smc_weight(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """Eq. 3: w'[o,i,k] = gain * s[i] w[o,i,k] / sqrt(sum over i,k of (s[i] w[o,i,k])^2 + eps)."""
    arithmetic = arithmetic_dtype(weight.dtype)
    modulated = scales.to(arithmetic)[None, :, None, None] * weight.to(arithmetic)  # [O, I, kh, kw]
    squares = modulated.square().sum(dim=(1, 2, 3), keepdim=True)  # [O, 1, 1, 1]
    demodulated = modulated * torch.rsqrt(squares + eps)  # [O, I, kh, kw]
    if gain is not None:
        demodulated = gain.to(arithmetic) * demodulated
    return stored_like(demodulated, dtype, like=weight)


def smc_weight_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (weight, scales, gain) in their dtypes. With u = s w, r = (sum u^2 + eps)^-1/2 and v = r u:

    dgain = sum(grad v),   du = gain r (grad - v sum over i,k of (grad v)),   dw = s du,   ds = sum over o,k of (w du).

    Built from differentiable operations, for the second derivative. Without a gain, dgain is 0.
    """
    arithmetic = arithmetic_dtype(weight.dtype)
    s, w, g = scales.to(arithmetic)[None, :, None, None], weight.to(arithmetic), grad.to(arithmetic)
    u = s * w  # [O, I, kh, kw]
    r = torch.rsqrt(u.square().sum(dim=(1, 2, 3), keepdim=True) + eps)  # [O, 1, 1, 1]
    v = r * u
    projection = (g * v).sum(dim=(1, 2, 3), keepdim=True)  # [O, 1, 1, 1]
    du = r * (g - v * projection)
    if gain is not None:
        du = gain.to(arithmetic) * du
    dgain = weight.new_zeros(()) if gain is None else projection.sum().to(gain.dtype).reshape(gain.shape)
    dw = stored_like(s * du, weight.dtype, like=weight)
    ds = (w * du).sum(dim=(0, 2, 3)).to(scales.dtype)  # [I]
    return dw, ds, dgain
