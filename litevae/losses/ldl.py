"""The LDL term of Table 15: an L1 loss where the reconstruction holds artifacts instead of detail.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from litevae.checks import check_same_shape, full_precision

WINDOW = 7


def ldl_loss(reconstruction: Tensor, ema_reconstruction: Tensor, image: Tensor) -> Tensor:
    """Locally discriminative learning (Liang et al. 2022): an L1 loss, weighted where the error looks like an artifact.

    With the residuals r = sum over channels of |image - reconstruction|, and the same of the averaged model,

        weight = var(r)^(1/5) * var7x7(r),   0 where r < r_ema        loss = mean |weight * (reconstruction - image)|

    var(r) is over all pixels of one image, var7x7(r) over the window around a pixel with reflected borders, both
    unbiased (divided by n - 1), as the authors have them. The weight is a constant: no gradient passes through it.
    It grows with the range of the images: the loss on [-1, 1] is 2^3.4 = 10.6 times the one on [0, 1].

    Args:
        reconstruction: [B, C, H, W], any float dtype; the arithmetic is float32 (float64 for float64).
        ema_reconstruction: the averaged model's reconstruction, the same shape; it has no gradient.
        image: the same shape, in [-1, 1]; it has no gradient.

    Returns:
        A scalar tensor, differentiable in `reconstruction`, once.

    Raises:
        ValueError: the shapes differ, or a side is not longer than 3 pixels (nothing to reflect).

    >>> image = torch.zeros(1, 3, 8, 8)
    >>> image[..., 4, 4] = 1.0
    >>> ldl_loss(image * 2, image, image).item() > 0
    True
    >>> ldl_loss(image * 2, image * 3, image).item()  # the averaged model is worse: no artifact
    0.0
    """
    check_same_shape(reconstruction, image)
    check_same_shape(ema_reconstruction, image, "ema_reconstruction")
    if min(image.shape[-2:]) <= WINDOW // 2:
        raise ValueError(
            f"image must be larger than {WINDOW // 2} pixels a side for {WINDOW}x{WINDOW} windows with reflected "
            f"borders, got {image.shape[-2]}x{image.shape[-1]}; use larger crops or set the LDL term's weight to 0"
        )
    error = (full_precision(reconstruction) - full_precision(image.detach())).abs()  # [B, C, H, W]
    with torch.no_grad():
        ema_error = (full_precision(ema_reconstruction) - full_precision(image)).abs()
        weight = artifact_weight(error.sum(1, keepdim=True), ema_error.sum(1, keepdim=True))
    return (weight * error).mean()  # the weight is not negative


def artifact_weight(residual: Tensor, ema_residual: Tensor) -> Tensor:
    """How much a pixel's error looks like an artifact: [B, 1, H, W] from the two residuals of that shape."""
    radius = WINDOW // 2
    whole = residual.var((1, 2, 3), keepdim=True) ** 0.2  # [B, 1, 1, 1]
    padded = F.pad(residual, (radius, radius, radius, radius), mode="reflect")  # [B, 1, H + 6, W + 6]
    windows = padded.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)  # [B, 1, H, W, 7, 7]
    local = windows.var((-2, -1))  # [B, 1, H, W]
    return (whole * local).masked_fill(residual < ema_residual, 0.0)
