"""Which losses is the autoencoder trained with? total.py adds them up (Eq. 1); every other file is one term.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from litevae.losses.gaussian import gaussian_high_pass_loss
from litevae.losses.kl import kl_loss
from litevae.losses.reconstruction import l1_loss
from litevae.losses.total import AutoencoderLoss, LossConfig
from litevae.losses.wavelet import wavelet_charbonnier_loss

__all__ = [
    "AutoencoderLoss",
    "LossConfig",
    "gaussian_high_pass_loss",
    "kl_loss",
    "l1_loss",
    "wavelet_charbonnier_loss",
]
