"""What does the autoencoder minimise? Eq. (1): every term by name, and their weighted sum.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

This is the only place where a weight meets a loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litevae.losses.adversarial import ADVERSARIAL_LOSSES, adaptive_weight, generator_loss
from litevae.losses.gaussian import gaussian_high_pass_loss
from litevae.losses.kl import KL_REDUCTIONS, Posterior, kl_loss
from litevae.losses.l1 import l1_loss
from litevae.losses.ldl import ldl_loss
from litevae.losses.wavelet import wavelet_charbonnier_loss
from litevae_kernels import haar_dwt2d

ADVERSARIAL_WEIGHTINGS = ("constant", "adaptive")
# What Eq. (2) compares the adversarial term with: LDM's reconstruction loss.
RECONSTRUCTION_TERMS = ("l1", "perceptual")


@dataclass
class LossConfig:
    """Weight, reduction and start of every term. A weight of 0 leaves its term out.

    The paper gives no weights. L1 and KL are LDM's effective ones (a mean over pixels; KL 1e-6 on that scale); the
    two high-frequency terms of section 4.3 enter at 1.0 and 0.5. The two terms with networks are left out here,
    since one downloads its weights; the paper's recipes (litevae/configs) have both.
    """

    l1_weight: float = 1.0
    """Mean absolute difference of the pixels."""
    perceptual_weight: float = 0.0
    """Which perceptual loss: section `perceptual`."""
    kl_weight: float = 1e-6
    """Divergence of the posterior from N(0, I)."""
    kl_reduction: str = "per_image_element"
    """"per_image_element": of a batch's mean, divided by C*H*W of the image. "sum": of a batch's mean, as it is."""
    wavelet_weight: float = 1.0
    """Charbonnier loss on the detail sub-bands of level 1 (section 4.3)."""
    wavelet_eps: float = 1e-6
    """Width of the quadratic bottom of that loss, in a sub-band's values."""
    gaussian_weight: float = 0.5
    """L1 of what a Gaussian blur takes away (section 4.3)."""
    gaussian_kernel_size: int = 5
    """Side of the blur's window, odd."""
    gaussian_sigma: float = 1.0
    """Standard deviation of the blur, in pixels."""
    ldl_weight: float = 0.0
    """Locally discriminative learning (Table 15); it needs `train.ema_decay`."""
    adversarial_weight: float = 0.0
    """Which discriminator: section `discriminator`."""
    adversarial_loss: str = "hinge"
    """"hinge" or "logistic" (Table 16), of the discriminator and of the generator."""
    adversarial_weighting: str = "constant"
    """"constant": the weight as it is, the paper's choice. "adaptive": times Eq. (2), the ablation of Table 8."""
    adversarial_start: int = 0
    """The first step with a discriminator; before it neither learns from the other."""

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"loss.{name}_weight must be at least 0, got {weight}")
        if not any(self.weights.values()):
            raise ValueError("loss must have at least one weight above 0, got 0 for every term")
        choices = {
            "kl_reduction": KL_REDUCTIONS,
            "adversarial_loss": ADVERSARIAL_LOSSES,
            "adversarial_weighting": ADVERSARIAL_WEIGHTINGS,
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"loss.{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")
        if not self.wavelet_eps >= 1e-18:
            raise ValueError(f"loss.wavelet_eps must be at least 1e-18, got {self.wavelet_eps}")
        if self.gaussian_kernel_size < 1 or self.gaussian_kernel_size % 2 == 0:
            raise ValueError(f"loss.gaussian_kernel_size must be odd and positive, got {self.gaussian_kernel_size}")
        if not self.gaussian_sigma > 0:
            raise ValueError(f"loss.gaussian_sigma must be greater than 0, got {self.gaussian_sigma}")
        if self.adversarial_start < 0:
            raise ValueError(f"loss.adversarial_start must be at least 0, got {self.adversarial_start}")
        if self.adversarial_weighting == "adaptive" and not any(self.weights[name] for name in RECONSTRUCTION_TERMS):
            raise ValueError(
                "loss.adversarial_weighting=adaptive needs loss.l1_weight or loss.perceptual_weight above 0"
            )

    @property
    def weights(self) -> dict[str, float]:
        """Term name -> weight, in the order of Eq. (1)."""
        names = ("l1", "perceptual", "kl", "wavelet", "gaussian", "ldl", "adversarial")
        return {name: getattr(self, f"{name}_weight") for name in names}


class AutoencoderLoss(nn.Module):
    """The generator's objective: sum of weight * term over the terms whose weight is not 0.

    `perceptual` (litevae/losses/perceptual.py) is asked for with `config.perceptual_weight`, a frozen network.
    """

    def __init__(self, config: LossConfig, perceptual: nn.Module | None = None) -> None:
        super().__init__()
        if (perceptual is None) != (config.perceptual_weight == 0):
            rule = "be given exactly if perceptual_weight is not 0"
            raise ValueError(f"perceptual must {rule}, got {perceptual} and {config.perceptual_weight}")
        self.config = config
        self.perceptual = perceptual

    def forward(
        self,
        image: Tensor,
        reconstruction: Tensor,
        wavelet: Tensor,
        posterior: Posterior,
        *,
        fake_logits: tuple[Tensor, ...] | None = None,
        ema_reconstruction: Tensor | None = None,
        last_layer: Tensor | None = None,
        average: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up Eq. (1) for one batch. Under autocast only the perceptual network is in half precision.

        Args:
            image: [B, C, H, W] in [-1, 1].
            reconstruction: the decoder's image, same shape.
            wavelet: level-1 sub-bands of the reconstruction, scaling "mean", [B, 4C, H/2, W/2], with its
                gradient: `LiteVAE.forward(...).wavelet`.
            posterior: `LiteVAE.forward(...).latent_dist`.
            fake_logits: what the frozen discriminator says of the reconstruction, with its gradient; None leaves the
                adversarial term out, as before `config.adversarial_start`.
            ema_reconstruction: the averaged model's reconstruction, for LDL.
            last_layer: the decoder's last weight, for the adaptive weight of Eq. (2).
            average: means a gradient over processes, so that the adaptive weight is the same in all of them.

        Returns:
            The total (a scalar to call backward on), and the terms by name plus "total": unweighted, detached, on
            the device. With the adaptive weight also "adversarial_weight", the factor of Eq. (2). Reading one
            synchronises; do it only to log.
        """
        weights = self.config.weights
        terms: dict[str, Tensor] = {}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(reconstruction, image)
        with torch.autocast(image.device.type, enabled=False):
            terms |= self._plain_terms(image, reconstruction, wavelet, posterior)
            if weights["ldl"] and ema_reconstruction is not None:
                terms["ldl"] = ldl_loss(reconstruction, ema_reconstruction, image)
            factors = {name: weights[name] for name in terms}
            extra: dict[str, Tensor] = {}
            if fake_logits is not None:
                terms["adversarial"] = generator_loss(fake_logits, self.config.adversarial_loss)
                factors["adversarial"] = weights["adversarial"]
                if self.config.adversarial_weighting == "adaptive":
                    extra["adversarial_weight"] = self._adaptive_weight(terms, last_layer, average)
            zero = image.new_zeros((), dtype=torch.float32)
            scaled = {name: factor * terms[name] for name, factor in factors.items()}
            if extra:
                scaled["adversarial"] = extra["adversarial_weight"] * scaled["adversarial"]
            total = sum((scaled[name] for name in weights if name in scaled), start=zero)
        ordered = {name: terms[name] for name in weights if name in terms}
        return total, {name: term.detach() for name, term in {"total": total, **ordered, **extra}.items()}

    def _plain_terms(
        self, image: Tensor, reconstruction: Tensor, wavelet: Tensor, posterior: Posterior
    ) -> dict[str, Tensor]:
        """The terms without networks, in float32."""
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
        return terms

    def _adaptive_weight(
        self, terms: dict[str, Tensor], last_layer: Tensor | None, average: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Eq. (2): how much larger the reconstruction's gradient is than the adversarial one, at the last layer."""
        if last_layer is None:
            raise ValueError("last_layer must be given for adversarial_weighting=adaptive, got None")
        weights = self.config.weights
        reconstruction = sum(
            (weights[name] * terms[name] for name in RECONSTRUCTION_TERMS if name in terms),
            start=last_layer.new_zeros(()),
        )
        gradients = [
            average(torch.autograd.grad(loss, last_layer, retain_graph=True)[0])
            for loss in (reconstruction, terms["adversarial"])
        ]
        return adaptive_weight(*gradients)
