"""The losses of the autoencoder. total.py adds them up (Eq. 1); the other files are a term each, vgg.py features.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from litevae.losses.adversarial import adaptive_weight, discriminator_loss, generator_loss, r1_penalty
from litevae.losses.gaussian import gaussian_high_pass_loss
from litevae.losses.kl import kl_loss
from litevae.losses.l1 import l1_loss
from litevae.losses.ldl import ldl_loss
from litevae.losses.perceptual import PerceptualConfig, build_perceptual
from litevae.losses.total import AutoencoderLoss, LossConfig
from litevae.losses.wavelet import wavelet_charbonnier_loss

__all__ = [
    "AutoencoderLoss",
    "LossConfig",
    "PerceptualConfig",
    "adaptive_weight",
    "build_perceptual",
    "discriminator_loss",
    "gaussian_high_pass_loss",
    "generator_loss",
    "kl_loss",
    "l1_loss",
    "ldl_loss",
    "r1_penalty",
    "wavelet_charbonnier_loss",
]
