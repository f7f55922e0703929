"""What does the autoencoder minimise? Eq. (1): every term by name, and their weighted sum.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

This is the only place where a weight meets a loss. The perceptual term (LPIPS, ESRGAN's VGG19) and the
adversarial term join `terms` in `AutoencoderLoss.forward`, with their weights in `LossConfig.weights`.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from litevae.losses.gaussian import gaussian_high_pass_loss
from litevae.losses.kl import KL_REDUCTIONS, Posterior, kl_loss
from litevae.losses.reconstruction import l1_loss
from litevae.losses.wavelet import wavelet_charbonnier_loss
from litevae_kernels import haar_dwt2d


@dataclass
class LossConfig:
    """Weight and reduction of every term. A weight of 0 leaves its term out.

    The paper gives no weights. L1 and KL are LDM's effective ones (a mean over pixels; KL 1e-6 on that scale); the
    two high-frequency terms of section 4.3 enter at 1.0 and 0.5.
    """

    l1_weight: float = 1.0
    kl_weight: float = 1e-6
    kl_reduction: str = "per_image_element"
    wavelet_weight: float = 1.0
    wavelet_eps: float = 1e-6
    gaussian_weight: float = 0.5
    gaussian_kernel_size: int = 5
    gaussian_sigma: float = 1.0

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"loss.{name}_weight must be at least 0, got {weight}")
        if not any(self.weights.values()):
            raise ValueError("loss must have at least one weight above 0, got 0 for every term")
        if self.kl_reduction not in KL_REDUCTIONS:
            raise ValueError(f"loss.kl_reduction must be one of {', '.join(KL_REDUCTIONS)}, got {self.kl_reduction!r}")
        if not self.wavelet_eps >= 1e-18:
            raise ValueError(f"loss.wavelet_eps must be at least 1e-18, got {self.wavelet_eps}")
        if self.gaussian_kernel_size < 1 or self.gaussian_kernel_size % 2 == 0:
            raise ValueError(f"loss.gaussian_kernel_size must be odd and positive, got {self.gaussian_kernel_size}")
        if not self.gaussian_sigma > 0:
            raise ValueError(f"loss.gaussian_sigma must be greater than 0, got {self.gaussian_sigma}")

    @property
    def weights(self) -> dict[str, float]:
        """Term name -> weight, in the order of Eq. (1)."""
        return {
            "l1": self.l1_weight,
            "kl": self.kl_weight,
            "wavelet": self.wavelet_weight,
            "gaussian": self.gaussian_weight,
        }


class AutoencoderLoss(nn.Module):
    """The generator's objective: sum of weight * term over the terms whose weight is not 0.

    A module, so that terms with networks of their own (perceptual) have a place for their parameters.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, image: Tensor, reconstruction: Tensor, wavelet: Tensor, posterior: Posterior
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up Eq. (1) for one batch.

        Args:
            image: [B, C, H, W] in [-1, 1].
            reconstruction: the decoder's image, same shape.
            wavelet: level-1 sub-bands of the reconstruction, scaling "mean", [B, 4C, H/2, W/2], with its
                gradient: `LiteVAE.forward(...).wavelet`.
            posterior: `LiteVAE.forward(...).latent_dist`.

        Returns:
            The total (a scalar to call backward on), and the terms by name plus "total": unweighted, detached, on
            the device. Reading one synchronises; do it only to log.
        """
        config = self.config
        terms: dict[str, Tensor] = {}
        if config.l1_weight:
            terms["l1"] = l1_loss(reconstruction, image)
        if config.kl_weight:
            terms["kl"] = kl_loss(posterior, image, config.kl_reduction)
        if config.wavelet_weight:
            image_wavelet = haar_dwt2d(image, 1, scaling="mean")[0]
            terms["wavelet"] = wavelet_charbonnier_loss(wavelet, image_wavelet, config.wavelet_eps)
        if config.gaussian_weight:
            terms["gaussian"] = gaussian_high_pass_loss(
                reconstruction, image, kernel_size=config.gaussian_kernel_size, sigma=config.gaussian_sigma
            )
        weights = config.weights
        total = sum((weights[name] * term for name, term in terms.items()), start=image.new_zeros(()))
        return total, {name: term.detach() for name, term in {"total": total, **terms}.items()}
