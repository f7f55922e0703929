"""The encoder, image to moments of the latent: wavelets, a UNet for each level, and one that merges them.

image -> [DWT -> feature extraction -> aggregation] -> latent -> decoder -> losses
"""

import torch
from torch import Tensor, nn

from litevae.checks import check_image
from litevae.config import LiteVAEConfig
from litevae.models.unet import UNet
from litevae_kernels import haar_dwt2d

LEVELS = 3
BANDS = 4  # L, H, V, D


class Encoder(nn.Module):
    """image [B, in_channels, H, W] -> moments [B, 2 * latent_channels, H/8, W/8] (section 4.1, Fig. 3).

    The image is floating point in [-1, 1], or uint8, whose 0 to 255 stand for -1 to 1. H and W are multiples of 8.

    The Haar sub-bands of level l, divided by 2^l, go through their own UNet; a strided 3x3 convolution takes levels 1
    and 2 to H/8; the aggregation UNet reads the three of them side by side. All of it is in channels_last.
    """

    def __init__(self, config: LiteVAEConfig) -> None:
        super().__init__()
        self.in_channels = config.in_channels
        channels = BANDS * config.in_channels
        self.extraction = nn.ModuleList(
            UNet(channels, channels, config.extraction_channels, config.extraction_multipliers, config.dropout)
            for _ in range(LEVELS)
        )
        # With padding 1, H/2 by stride 4 and H/4 by stride 2 are exactly H/8 for every H that 8 divides.
        self.downsample = nn.ModuleList(
            [
                nn.Conv2d(channels, channels, 3, stride=4, padding=1),
                nn.Conv2d(channels, channels, 3, stride=2, padding=1),
                nn.Identity(),
            ]
        )
        self.aggregation = UNet(
            LEVELS * channels,
            2 * config.latent_channels,
            config.aggregation_channels,
            config.aggregation_multipliers,
            config.dropout,
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def check(self, image: object) -> None:
        """Raise the TypeError or ValueError of `forward`, for callers that touch the image before it."""
        check_image(image, self.in_channels)

    def forward(self, image: Tensor) -> Tensor:
        self.check(image)
        dtype = next(self.parameters()).dtype if image.dtype == torch.uint8 else image.dtype
        # level l: [B, 4C, H/2^l, W/2^l] in channels_last, from an image of any strides
        pyramid = haar_dwt2d(image, LEVELS, scaling="mean", dtype=dtype, memory_format=torch.channels_last)
        features = [
            downsample(extract(bands))  # [B, 4C, H/8, W/8]
            for bands, extract, downsample in zip(pyramid, self.extraction, self.downsample, strict=True)
        ]
        return self.aggregation(torch.cat(features, dim=1))  # [B, 12C, H/8, W/8] -> [B, 2 * latent_channels, H/8, W/8]
