"""The Gaussian term of section 4.3: L1 between what a blur would take away.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from litevae.checks import check_same_shape, full_precision


def gaussian_high_pass_loss(
    reconstruction: Tensor, image: Tensor, *, kernel_size: int = 5, sigma: float = 1.0
) -> Tensor:
    """Mean absolute difference between x - G(x) and y - G(y); G blurs with reflected borders (section 4.3).

    The blur is linear, so one blur of the difference does the work of two.

    Args:
        reconstruction: [B, C, H, W], any float dtype; the arithmetic is float32 (float64 for float64).
        image: the same shape, in [-1, 1].
        kernel_size: side of the Gaussian window, odd.
        sigma: standard deviation of the Gaussian, in pixels.

    Raises:
        ValueError: the shapes differ, or a side is not longer than half the window (nothing to reflect).

    >>> flat = torch.zeros(1, 3, 8, 8)
    >>> gaussian_high_pass_loss(flat, flat + 0.5).item() < 1e-6  # a constant offset has no texture
    True
    """
    check_same_shape(reconstruction, image)
    difference = full_precision(reconstruction) - full_precision(image)  # [B, C, H, W]
    return (difference - gaussian_blur(difference, kernel_size, sigma)).abs().mean()


def gaussian_blur(x: Tensor, kernel_size: int, sigma: float) -> Tensor:
    """Blur [B, C, H, W] with a normalised Gaussian window, each channel by itself, borders reflected."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    if not sigma > 0:
        raise ValueError(f"sigma must be greater than 0, got {sigma}")
    radius = kernel_size // 2
    if min(x.shape[-2:]) <= radius:
        raise ValueError(
            f"image must be larger than {radius} pixels a side for a {kernel_size}x{kernel_size} blur with reflected "
            f"borders, got {x.shape[-2]}x{x.shape[-1]}; use larger crops or set the Gaussian term's weight to 0"
        )
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = window / window.sum()  # [kernel_size]
    channels = x.shape[1]
    x = F.pad(x, (radius, radius, radius, radius), mode="reflect")  # [B, C, H + 2r, W + 2r]
    x = F.conv2d(x, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)  # along columns
    return F.conv2d(x, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)  # along rows
