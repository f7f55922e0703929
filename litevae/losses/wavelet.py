"""The wavelet term of section 4.3: Charbonnier loss on the detail sub-bands.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import torch
from torch import Tensor

from litevae.checks import check_same_shape, full_precision
from litevae_kernels import haar_dwt2d


def wavelet_charbonnier_loss(
    reconstruction: Tensor, image: Tensor, *, eps: float = 1e-6, wavelet: Tensor | None = None
) -> Tensor:
    """Mean of sqrt(d^2 + eps^2) over the H, V and D sub-bands of level 1; L is left to the other terms.

    It takes images and makes the sub-bands with the paper's scaling, `haar_dwt2d(x, 1, scaling="mean")`: half of what
    `haar_dwt2d` gives by default. The gradient reaches `reconstruction`, or `wavelet`, and whatever made it.

    Args:
        reconstruction: [B, C, H, W], any float dtype; the arithmetic is float32 (float64 for float64).
        image: the same shape, in [-1, 1].
        eps: how wide the quadratic bottom of the loss is, > 0, in units of a sub-band's values (about [-1, 1]).
            Without it the gradient at zero difference would be NaN. Its square must stay above float32's
            smallest number, so at least 1e-18.
        wavelet: the reconstruction's sub-bands of that scaling, packed L H V D, [B, 4C, H/2, W/2], where the decoder
            made them (`LiteVAEOutput.wavelet`); None: they are made here.

    Raises:
        ValueError: the shapes differ, or eps is too small.

    >>> image = torch.zeros(1, 3, 4, 4)
    >>> image[..., ::2, :] = 1.0  # rows differ by 1: H is 0.5, V and D are 0
    >>> round(wavelet_charbonnier_loss(image, torch.zeros(1, 3, 4, 4)).item(), 4)
    0.1667
    """
    check_same_shape(reconstruction, image)
    if not eps >= 1e-18:
        raise ValueError(f"eps must be at least 1e-18, got {eps}")
    image_wavelet = _sub_bands(image)  # [B, 4C, H/2, W/2]
    wavelet = _sub_bands(reconstruction) if wavelet is None else wavelet
    if wavelet.shape != image_wavelet.shape:
        expected, got = tuple(image_wavelet.shape), tuple(wavelet.shape)
        raise ValueError(f"wavelet must have the shape of the image's sub-bands {expected}, got {got}")
    details = slice(image.shape[1], None)  # H V D: everything behind L
    difference = full_precision(wavelet[:, details]) - full_precision(image_wavelet[:, details])  # [B, 3C, H/2, W/2]
    return torch.sqrt(difference.square() + eps**2).mean()


def _sub_bands(image: Tensor) -> Tensor:
    return haar_dwt2d(full_precision(image), 1, scaling="mean")[0]
