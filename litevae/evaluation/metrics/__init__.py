"""How good is a reconstruction? One file per metric; each states its protocol.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from litevae.evaluation.metrics.lpips import lpips_distance
from litevae.evaluation.metrics.psnr import psnr
from litevae.evaluation.metrics.ssim import ssim

__all__ = ["lpips_distance", "psnr", "ssim"]
