"""The KL term of Eq. (1): how far the posterior is from a standard normal, with its reduction spelt out.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from typing import Protocol

from torch import Tensor

from litevae_kernels.checks import check_choice

KL_REDUCTIONS = ("per_image_element", "sum")


class Posterior(Protocol):
    """What the loss needs of a posterior: `litevae.models.latent.DiagonalGaussian` has it."""

    def kl(self) -> Tensor:
        """KL(posterior || N(0, I)) of each sample, summed over the latent's C, H, W: [B]."""


def kl_loss(posterior: Posterior, image: Tensor, reduction: str) -> Tensor:
    """KL divergence of the posterior from N(0, I), averaged over the batch (Eq. 1's regularisation).

    The two reductions differ by a factor of C*H*W (196,608 for a 256x256 image): a weight that belongs to one
    ruins training with the other, so the reduction is an argument without a default.

    Args:
        posterior: its `kl()` is [B]: 0.5 * sum over C, H, W of (mean^2 + var - 1 - logvar).
        image: [B, C, H, W], used for its size only.
        reduction: "sum": kl() averaged over the batch, as it is. "per_image_element": that divided by the image's
            C*H*W, the scale of a mean over pixels; with it a weight of 1e-6 is what LDM's training code
            effectively uses beside a mean L1.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: an unknown reduction.
    """
    check_choice("reduction", reduction, KL_REDUCTIONS)
    kl = posterior.kl().mean()  # [B] -> []
    return kl if reduction == "sum" else kl / image[0].numel()
