"""PSNR, SSIM and LPIPS of reconstructions, one number per image; each function states its protocol.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

import torch
from torch import Tensor, nn

from litevae import torchvision_shim
from litevae.checks import check_same_shape
from litevae.losses.perceptual import LpipsLoss

WINDOW = 11


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
    return 10 * (4 / error.square().flatten(1).mean(1)).log10()  # [B]


def ssim(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004).

    Protocol: images in [-1, 1] (a data range of 2), the reconstruction clamped to it, 11x11 Gaussian window with
    sigma 1.5, K1 0.01, K2 0.03, windows that reach over the border left out, mean over positions and channels.

    Args:
        reconstruction: [B, C, H, W], any float dtype; the arithmetic is float64.
        image: the same shape, H and W at least 11.

    Returns:
        [B], float64.

    Raises:
        ValueError: the shapes differ, or an image is smaller than the window.
    """
    torchvision_shim.install()  # torchmetrics imports torchvision
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_same_shape(reconstruction, image)
    if min(image.shape[-2:]) < WINDOW:
        rule = f"be at least {WINDOW}x{WINDOW} pixels for SSIM's window"
        raise ValueError(f"image must {rule}, got {image.shape[-2]}x{image.shape[-1]}")
    _, similarity = structural_similarity_index_measure(
        reconstruction.double().clamp(-1, 1), image.double(), sigma=1.5, data_range=2.0, return_full_image=True
    )  # [B, C, H, W], one value per position of the window
    border = WINDOW // 2  # torchmetrics pads it by reflection; its versions differ in whether they count it
    return similarity[..., border:-border, border:-border].flatten(1).mean(1)  # [B]


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
        return perceptual.distances(reconstruction.clamp(-1, 1), image)  # [B]
