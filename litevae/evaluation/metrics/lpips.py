"""How different does the reconstruction look to a network that knows pictures? LPIPS, one number per image.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

import torch
from torch import Tensor, nn

from litevae.checks import check_same_shape
from litevae.losses.perceptual import LpipsLoss


@torch.no_grad()
def lpips_distance(perceptual: nn.Module, reconstruction: Tensor, image: Tensor) -> Tensor:
    """LPIPS of each image (Zhang et al. 2018); no gradient.

    Protocol: version 0.1 on VGG16 (not AlexNet, whose numbers are others), images in [-1, 1], the reconstruction
    clamped to it, whole images at their own size, float32 whatever the autocast; average the result over images. Say
    `perceptual.name` beside the number: a random trunk ("lpips_random_trunk") compares with itself only.

    Args:
        perceptual: `build_perceptual(PerceptualConfig(kind="lpips", ...))`, on the images' device. The one of the
            training loss will do.
        reconstruction: [B, 3, H, W], any float dtype, H and W at least 16.
        image: the same shape.

    Returns:
        [B], float32.

    Raises:
        TypeError: another perceptual loss.
        ValueError: the shapes differ, have not 3 channels, or are too small.
    """
    if not isinstance(perceptual, LpipsLoss):
        raise TypeError(
            f"perceptual must be LPIPS, got {type(perceptual).__name__}; build it with PerceptualConfig(kind='lpips')"
        )
    check_same_shape(reconstruction, image)
    with torch.autocast(image.device.type, enabled=False):
        return perceptual.distances(reconstruction.clamp(-1, 1), image)
