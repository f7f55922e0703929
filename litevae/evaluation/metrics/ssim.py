"""How much of the image's structure is kept? SSIM, one number per image.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from torch import Tensor

from litevae import torchvision_shim
from litevae.checks import check_same_shape

WINDOW = 11


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
        raise ValueError(
            f"image must be at least {WINDOW}x{WINDOW} pixels for SSIM's window, "
            f"got {image.shape[-2]}x{image.shape[-1]}"
        )
    _, positions = structural_similarity_index_measure(
        reconstruction.double().clamp(-1, 1), image.double(), sigma=1.5, data_range=2.0, return_full_image=True
    )
    border = WINDOW // 2  # torchmetrics reflects the image there; its versions differ in whether they count it
    return positions[..., border:-border, border:-border].flatten(1).mean(1)
