"""Are the image's edges reproduced? The wavelet term of section 4.3: Charbonnier loss on the detail sub-bands.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import torch
from torch import Tensor

from litevae.losses.l1 import check_same_shape, full_precision


def wavelet_charbonnier_loss(reconstruction_wavelet: Tensor, image_wavelet: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean of sqrt(d^2 + eps^2) over the H, V and D sub-bands of level 1; L is left to the other terms.

    Both inputs are packed Haar sub-bands as `haar_dwt2d(x, 1, scaling="mean")[0]` returns them: band-major
    L H V D, [B, 4C, H/2, W/2]. The gradient reaches `reconstruction_wavelet` (and whatever made it).

    Args:
        reconstruction_wavelet: [B, 4C, h, w], any float dtype; the arithmetic is float32 (float64 for float64).
        image_wavelet: the same shape.
        eps: how wide the quadratic bottom of the loss is, > 0, in units of a sub-band's values (about [-1, 1]).
            Without it the gradient at zero difference would be NaN. Its square must stay above float32's
            smallest number, so at least 1e-18.

    Raises:
        ValueError: the shapes differ, the channels are not a multiple of 4, or eps is too small.

    >>> bands = torch.zeros(1, 12, 4, 4)
    >>> round(wavelet_charbonnier_loss(bands, bands + 0.5, eps=1e-6).item(), 6)
    0.5
    """
    check_same_shape(reconstruction_wavelet, image_wavelet)
    channels = image_wavelet.shape[1]
    if channels % 4:
        raise ValueError(f"image_wavelet must have a multiple of 4 channels (L H V D, band-major), got {channels}")
    if not eps >= 1e-18:
        raise ValueError(f"eps must be at least 1e-18, got {eps}")
    details = slice(channels // 4, None)  # H V D: everything behind L
    difference = full_precision(reconstruction_wavelet[:, details]) - full_precision(image_wavelet[:, details])
    return torch.sqrt(difference.square() + eps**2).mean()
