"""How good is a reconstruction? One file per metric; each states its protocol.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from litevae.metrics.psnr import psnr
from litevae.metrics.ssim import ssim

__all__ = ["psnr", "ssim"]
