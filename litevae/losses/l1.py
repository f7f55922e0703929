"""How far is the reconstruction from the image, pixel by pixel? The L1 term of Eq. (1).

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from torch import Tensor


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


def check_same_shape(reconstruction: Tensor, image: Tensor) -> None:
    """Refuse a pair that broadcasting would silently compare wrongly."""
    if reconstruction.shape != image.shape:
        raise ValueError(
            f"reconstruction must have the image's shape {tuple(image.shape)}, got {tuple(reconstruction.shape)}"
        )


def full_precision(x: Tensor) -> Tensor:
    """Half precision becomes float32: a mean over many half-precision elements would lose its last digits."""
    return x if x.dtype.itemsize >= 4 else x.float()
