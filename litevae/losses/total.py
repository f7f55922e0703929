"""What the autoencoder minimises, Eq. (1): every term by name, and their weighted sum.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

This is the only place where a weight meets a loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litevae.losses.adversarial import ADVERSARIAL_LOSSES, adaptive_weight, generator_loss, gradient_ratio
from litevae.losses.gaussian import gaussian_high_pass_loss
from litevae.losses.kl import KL_REDUCTIONS, Posterior, kl_loss
from litevae.losses.l1 import l1_loss
from litevae.losses.ldl import ldl_loss
from litevae.losses.wavelet import wavelet_charbonnier_loss
from litevae_kernels.checks import check_choice, check_int, check_number, wrong_value

ADVERSARIAL_WEIGHTINGS = ("constant", "adaptive")
# What Eq. (2) compares the adversarial term with: LDM's reconstruction loss.
RECONSTRUCTION_TERMS = ("l1", "perceptual")
# A power of two: gradients of means over many pixels would be 0 in float16.
_GRADIENT_SCALE = 256.0


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
    """Section `perceptual`; it needs pretrained weights: a download, or the file `perceptual.path`."""
    kl_weight: float = 1e-6
    """KL divergence of the posterior from N(0, I)."""
    kl_reduction: str = "per_image_element"
    """"sum": KL summed over the latent, mean over the batch. "per_image_element": that, divided by the image's C*H*W;
    with it 1e-6 is LDM's effective weight beside a mean L1."""
    wavelet_weight: float = 1.0
    """Charbonnier loss on H, V, D of the level-1 Haar transform (section 4.3)."""
    wavelet_eps: float = 1e-6
    """Width of the quadratic bottom of that loss, in a sub-band's values."""
    gaussian_weight: float = 0.5
    """L1 between x - G(x) and y - G(y), G a Gaussian blur (section 4.3)."""
    gaussian_kernel_size: int = 5
    """Side of the blur's window, odd."""
    gaussian_sigma: float = 1.0
    """Standard deviation of the blur, in pixels."""
    ldl_weight: float = 0.0
    """Locally discriminative learning (Table 15); it needs `train.ema_decay`."""
    adversarial_weight: float = 0.0
    """Section `discriminator`; above 0 there is one."""
    adversarial_loss: str = "hinge"
    """"hinge" or "logistic" (Table 16), of the discriminator and of the generator."""
    adversarial_weighting: str = "constant"
    """"constant": the weight as it is, the paper's choice. "adaptive": times Eq. (2), the ablation of Table 8."""
    adversarial_start: int = 0
    """The first step with a discriminator; before it neither learns from the other."""

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            check_number(f"loss.{name}_weight", weight, at_least=0)
        if not any(self.weights.values()):
            raise ValueError("loss must have at least one weight above 0, got 0 for every term")
        check_choice("loss.kl_reduction", self.kl_reduction, KL_REDUCTIONS)
        check_choice("loss.adversarial_loss", self.adversarial_loss, ADVERSARIAL_LOSSES)
        check_choice("loss.adversarial_weighting", self.adversarial_weighting, ADVERSARIAL_WEIGHTINGS)
        check_number("loss.wavelet_eps", self.wavelet_eps, at_least=1e-18)
        check_int("loss.gaussian_kernel_size", self.gaussian_kernel_size, at_least=1)
        if self.gaussian_kernel_size % 2 == 0:
            raise wrong_value("loss.gaussian_kernel_size", "be odd", self.gaussian_kernel_size)
        check_number("loss.gaussian_sigma", self.gaussian_sigma, above=0)
        check_int("loss.adversarial_start", self.adversarial_start, at_least=0)
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

    `perceptual` (litevae/losses/perceptual.py), a frozen network, must be given with `config.perceptual_weight`.
    """

    def __init__(self, config: LossConfig, perceptual: nn.Module | None = None) -> None:
        super().__init__()
        if (perceptual is None) != (config.perceptual_weight == 0):
            rule = f"be {'a network' if config.perceptual_weight else 'None'} for loss.perceptual_weight="
            raise wrong_value("perceptual", f"{rule}{config.perceptual_weight}", perceptual, "see build_perceptual")
        self.config = config
        self.perceptual = perceptual

    def forward(
        self,
        image: Tensor,
        reconstruction: Tensor,
        wavelet: Tensor | None,
        posterior: Posterior,
        *,
        fake_logits: tuple[Tensor, ...] | None = None,
        ema_reconstruction: Tensor | None = None,
        last_layer: Tensor | None = None,
        average: Callable[[Tensor], Tensor] = lambda gradient: gradient,
        measure_ratio: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up Eq. (1) for one batch. Under autocast only the perceptual network is in half precision.

        Args:
            image: [B, C, H, W] in [-1, 1].
            reconstruction: the decoder's image, same shape.
            wavelet: the reconstruction's sub-bands, [B, 4C, H/2, W/2], with their gradient, where the decoder made
                them: `LiteVAE.forward(...).wavelet`. None: the wavelet term makes them.
            posterior: `LiteVAE.forward(...).latent_dist`.
            fake_logits: the frozen discriminator's logits of the reconstruction, with their gradient; None before
                `config.adversarial_start`, which leaves the adversarial term out.
            ema_reconstruction: the averaged model's reconstruction, with `config.ldl_weight`.
            last_layer: the decoder's last weight, for the adaptive weight of Eq. (2) and for `measure_ratio`.
            average: means a gradient over processes, so that the adaptive weight is the same in all of them.
            measure_ratio: whether to find "adversarial_gradient_ratio", which costs a backward pass through the
                discriminator, unless the weight is adaptive: then it is there anyway.

        Returns:
            The total (a scalar to call backward on), and the terms by name plus "total": unweighted, detached, on
            the device. With the adaptive weight also "adversarial_weight", the factor of Eq. (2), and, as with
            `measure_ratio`, "adversarial_gradient_ratio": the norm of the adversarial term's gradient at the last
            layer over that of the reconstruction terms of Eq. (2). It is Figure 7's, and of the gradient before
            `adversarial_weight` and Eq. (2): after Eq. (2) it would be 1/2 at every step. Reading one synchronises;
            do it only to log.

        Raises:
            ValueError: an input of a term whose weight is not 0 is None, or of the KL term a posterior without noise.
        """
        weights = self.config.weights
        self._check_inputs(posterior, fake_logits, ema_reconstruction)
        terms: dict[str, Tensor] = {}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(reconstruction, image)
        with torch.autocast(image.device.type, enabled=False):
            terms |= self._plain_terms(image, reconstruction, wavelet, posterior)
            if ema_reconstruction is not None and weights["ldl"]:
                terms["ldl"] = ldl_loss(reconstruction, ema_reconstruction, image)
            factors = {name: weights[name] for name in terms}
            extra: dict[str, Tensor] = {}
            if fake_logits is not None:
                terms["adversarial"] = generator_loss(fake_logits, self.config.adversarial_loss)
                factors["adversarial"] = weights["adversarial"]
                is_adaptive = self.config.adversarial_weighting == "adaptive"
                if is_adaptive or measure_ratio:
                    gradients = self._last_gradients(terms, last_layer, average)
                    extra["adversarial_gradient_ratio"] = gradient_ratio(*gradients)
                if is_adaptive:
                    extra["adversarial_weight"] = adaptive_weight(*gradients)
            zero = image.new_zeros((), dtype=torch.float32)
            scaled = {name: factor * terms[name] for name, factor in factors.items()}
            if "adversarial_weight" in extra:
                scaled["adversarial"] = extra["adversarial_weight"] * scaled["adversarial"]
            total = sum((scaled[name] for name in weights if name in scaled), start=zero)
        ordered = {name: terms[name] for name in weights if name in terms}
        return total, {name: term.detach() for name, term in {"total": total, **ordered, **extra}.items()}

    def _check_inputs(
        self, posterior: Posterior, fake_logits: tuple[Tensor, ...] | None, ema_reconstruction: Tensor | None
    ) -> None:
        """Refuse to drop a term that the config asks for. Before adversarial_start there are no logits."""
        config = self.config
        if config.kl_weight and getattr(posterior, "deterministic", False):
            raise wrong_value("loss.kl_weight", "be 0 for a posterior without noise", config.kl_weight)
        if config.ldl_weight and ema_reconstruction is None:
            rule = f"be given for loss.ldl_weight={config.ldl_weight}"
            way_out = "pass the averaged model's reconstruction (train.ema_decay), or set loss.ldl_weight to 0"
            raise wrong_value("ema_reconstruction", rule, None, way_out)
        if config.adversarial_weight and config.adversarial_start == 0 and fake_logits is None:
            rule = f"be given for loss.adversarial_weight={config.adversarial_weight} with loss.adversarial_start=0"
            way_out = "pass the discriminator's logits of the reconstruction, or set loss.adversarial_weight to 0"
            raise wrong_value("fake_logits", rule, None, way_out)

    def _plain_terms(
        self, image: Tensor, reconstruction: Tensor, wavelet: Tensor | None, posterior: Posterior
    ) -> dict[str, Tensor]:
        """The terms without networks, in float32."""
        config = self.config
        terms: dict[str, Tensor] = {}
        if config.l1_weight:
            terms["l1"] = l1_loss(reconstruction, image)
        if config.kl_weight:
            terms["kl"] = kl_loss(posterior, image, config.kl_reduction)
        if config.wavelet_weight:
            terms["wavelet"] = wavelet_charbonnier_loss(reconstruction, image, eps=config.wavelet_eps, wavelet=wavelet)
        if config.gaussian_weight:
            terms["gaussian"] = gaussian_high_pass_loss(
                reconstruction, image, kernel_size=config.gaussian_kernel_size, sigma=config.gaussian_sigma
            )
        return terms

    def _last_gradients(
        self, terms: dict[str, Tensor], last_layer: Tensor | None, average: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What Eq. (2) compares: gradients of the reconstruction terms and of the adversarial one at the last layer."""
        if last_layer is None:
            raise wrong_value("last_layer", "be given for loss.adversarial_weighting=adaptive or measure_ratio", None)
        weights = self.config.weights
        reconstruction = sum(
            (weights[name] * terms[name] for name in RECONSTRUCTION_TERMS if name in terms),
            start=last_layer.new_zeros(()),
        )
        first, second = (
            average(torch.autograd.grad(_GRADIENT_SCALE * loss, last_layer, retain_graph=True)[0]) / _GRADIENT_SCALE
            for loss in (reconstruction, terms["adversarial"])
        )
        return first, second
