"""PSNR, SSIM and LPIPS of reconstructions, one number per image; each function states its protocol.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

import torch
from torch import Tensor, nn

from litevae.checks import check_same_shape
from litevae.losses.perceptual import LpipsLoss

WINDOW, SIGMA = 11, 1.5  # of SSIM


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
    check_same_shape(reconstruction, image)
    if min(image.shape[-2:]) < WINDOW:
        rule = f"be at least {WINDOW}x{WINDOW} pixels for SSIM's window"
        raise ValueError(f"image must {rule}, got {image.shape[-2]}x{image.shape[-1]}")
    x, y = reconstruction.double().clamp(-1, 1), image.double()
    means = _smoothed(torch.stack([x, y, x * x, y * y, x * y]))  # [5, B, C, H - 10, W - 10]
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = means
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance, variances = mean_xy - product, mean_xx + mean_yy - squares  # of the pixels in each window
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.flatten(1).mean(1)  # [B]


def _smoothed(images: Tensor) -> Tensor:
    """Weighted means of all windows: [..., H, W] -> [..., H - 10, W - 10], of columns first and then of rows.

    Eleven sums of shifted images; a convolution of 11x11 in float64 takes a CPU forty times as long.
    """
    weights = torch.exp(-(torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2).square() / (2 * SIGMA**2))
    for dim in (-2, -1):
        length = images.shape[dim] - WINDOW + 1
        total = torch.zeros_like(images.narrow(dim, 0, length))
        for shift, weight in enumerate((weights / weights.sum()).tolist()):
            total.add_(images.narrow(dim, shift, length), alpha=weight)
        images = total
    return images


@torch.no_grad()
def lpips_distance(perceptual: nn.Module, reconstruction: Tensor, image: Tensor) -> Tensor:
    """LPIPS of each image (Zhang et al. 2018); no gradient.

    Protocol: version 0.1 on the trunk of `perceptual` (VGG16's numbers and AlexNet's do not compare), images in
    [-1, 1], the reconstruction clamped to it, whole images at their own size, float32 whatever the autocast; average
    the result over images. Say `perceptual.name` beside the number: a random trunk ("lpips_random_trunk") compares with
    itself only.

    Args:
        perceptual: `build_perceptual(PerceptualConfig(kind="lpips", ...))`, on the images' device. The one of the
            training loss will do.
        reconstruction: [B, 3, H, W], any float dtype, H and W at least 16 (AlexNet: 31).
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
