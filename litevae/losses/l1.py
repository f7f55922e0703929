"""The L1 term of Eq. (1): how far the reconstruction is from the image, pixel by pixel.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from torch import Tensor

from litevae.checks import check_same_shape, full_precision


def l1_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference over every element (Eq. 1, the reconstruction term).

    Args:
        reconstruction: [B, C, H, W], any float dtype; the arithmetic is float32 (float64 for float64).
        image: the same shape, in [-1, 1].

    Returns:
        A scalar tensor; differentiable in both arguments.

    Raises:
        ValueError: the shapes differ.

    >>> import torch
    >>> l1_loss(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
    0.5
    """
    check_same_shape(reconstruction, image)
    return (full_precision(reconstruction) - full_precision(image)).abs().mean()
