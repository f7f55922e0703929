"""How many decibels is the reconstruction above its error? PSNR, one number per image.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from torch import Tensor

from litevae.checks import check_same_shape


def psnr(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: 10 log10(range^2 / mean squared error).

    Protocol: images in [-1, 1] (a data range of 2), the reconstruction clamped to it, no rounding to 8 bits, the
    mean over all channels and pixels of one image; average the result over images, not the errors.

    Args:
        reconstruction: [B, C, H, W], any float dtype; the arithmetic is float64.
        image: the same shape.

    Returns:
        [B], float64; infinite for identical images.

    Raises:
        ValueError: the shapes differ.

    >>> import torch
    >>> round(psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)).item(), 4)  # 10 log10(4 / 0.04)
    20.0
    """
    check_same_shape(reconstruction, image)
    error = reconstruction.double().clamp(-1, 1) - image.double()
    return 10 * (4 / error.square().flatten(1).mean(1)).log10()
