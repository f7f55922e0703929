"""The encoders without parameters: the latent is the sub-bands themselves (appendix B, Tables 11 to 13).

image -> [DWT] -> latent -> decoder -> losses
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.checks import check_image
from litevae.config import LiteVAEConfig
from litevae.models.latent import LOGVAR_MIN
from litevae_kernels import haar_dwt2d


class WaveletEncoder(nn.Module):
    """image [B, in_channels, H, W] -> moments [B, 2 * latent_channels, h, w], with the means in the first half.

    "dwt": the means are L H V D of the last level, 4 * in_channels. "dwt-2": those of the level before it, each 2x2
    block of positions as channels, 16 * in_channels; of the last level's sub-bands and the finer H V D they differ by
    an orthogonal matrix. All are divided by 2^l, as the learned encoder reads them. The log-variances are the least
    that there are: `LiteVAE.encode` gives a posterior without noise. Of pixels of 8 bits the moments are float32:
    there is no parameter whose dtype they could take.
    """

    def __init__(self, config: LiteVAEConfig) -> None:
        super().__init__()
        self.in_channels, self.multiple = config.in_channels, config.downsampling
        self.unshuffle = 2 if config.encoder_type == "dwt-2" else 1
        self.levels = config.wavelet_levels[-1] - (self.unshuffle - 1)

    def check(self, image: object) -> None:
        """Raise the TypeError or ValueError of `forward`, for callers that touch the image before it."""
        check_image(image, self.in_channels, self.multiple)

    def forward(self, image: Tensor) -> Tensor:
        self.check(image)
        dtype = torch.float32 if image.dtype == torch.uint8 else image.dtype
        *_, bands = haar_dwt2d(image, self.levels, scaling="mean", dtype=dtype, memory_format=torch.channels_last)
        means = F.pixel_unshuffle(bands, self.unshuffle)  # [B, latent_channels, h, w]
        return torch.cat([means, torch.full_like(means, LOGVAR_MIN)], dim=1)
