"""The encoder, image to moments of the latent: wavelets, a network for each level, and one that merges them.

image -> [DWT -> feature extraction -> aggregation] -> latent -> decoder -> losses
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from litevae.checks import check_image
from litevae.config import LiteVAEConfig
from litevae.models.feature_network import FeatureNetwork
from litevae.models.nafnet import NAFNet
from litevae.models.unet import UNet
from litevae.models.vit import ViT
from litevae.models.wavelet_encoder import WaveletEncoder
from litevae_kernels import haar_dwt2d

BANDS = 4  # L, H, V, D

Build = Callable[[LiteVAEConfig, int, int], FeatureNetwork]
# config, in_channels, out_channels -> the network that `extraction` names
EXTRACTORS: dict[str, Build] = {
    "unet": lambda config, channels, out_channels: UNet(
        channels,
        out_channels,
        config.extraction_channels,
        config.extraction_multipliers,
        config.dropout,
        config.encoder_normalization,
    ),
    "nafnet": lambda config, channels, out_channels: NAFNet(
        channels, out_channels, config.nafnet_width, config.nafnet_blocks, config.dropout
    ),
}
# The same for `aggregation`
AGGREGATORS: dict[str, Build] = {
    "unet": lambda config, channels, out_channels: UNet(
        channels,
        out_channels,
        config.aggregation_channels,
        config.aggregation_multipliers,
        config.dropout,
        config.encoder_normalization,
    ),
    "vit": lambda config, channels, out_channels: ViT(
        channels, out_channels, config.vit_width, config.vit_depth, config.vit_heads, config.dropout
    ),
}


class Encoder(nn.Module):
    """image [B, in_channels, H, W] -> moments [B, 2 * latent_channels, H/8, W/8] (section 4.1, Fig. 3).

    The image is floating point in [-1, 1], or uint8, whose 0 to 255 stand for -1 to 1. H and W are multiples of 8; of
    4 or 16, with a latent of H/4 or H/16, where the last of `wavelet_levels` is 2 or 4.

    The Haar sub-bands of level l, divided by 2^l, go through an extractor, their own or the `shared_extraction`; a
    strided 3x3 convolution takes the finer levels to the resolution of the last; the aggregator reads all of them side
    by side. All of it is in channels_last.
    """

    def __init__(self, config: LiteVAEConfig) -> None:
        super().__init__()
        self.in_channels, self.multiple = config.in_channels, config.downsampling
        self.levels = config.wavelet_levels
        channels = BANDS * config.in_channels
        extract, aggregate = EXTRACTORS[config.extraction], AGGREGATORS[config.aggregation]
        self.is_shared = config.shared_extraction
        extractors = 1 if self.is_shared else len(self.levels)
        self.extraction = nn.ModuleList(extract(config, channels, channels) for _ in range(extractors))
        # With padding 1, a side of H/2^l by this stride is exactly the last level's, whatever H is.
        self.downsample = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2 ** (self.levels[-1] - level), padding=1)
            if level < self.levels[-1]
            else nn.Identity()
            for level in self.levels
        )
        self.aggregation = aggregate(config, len(self.levels) * channels, 2 * config.latent_channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def check(self, image: object) -> None:
        """Raise the TypeError or ValueError of `forward`, for callers that touch the image before it."""
        check_image(image, self.in_channels, self.multiple)

    def forward(self, image: Tensor) -> Tensor:
        self.check(image)
        dtype = next(self.parameters()).dtype if image.dtype == torch.uint8 else image.dtype
        # level l: [B, 4C, H/2^l, W/2^l] in channels_last, from an image of any strides
        pyramid = haar_dwt2d(image, self.levels[-1], scaling="mean", dtype=dtype, memory_format=torch.channels_last)
        features = []
        for index, (level, downsample) in enumerate(zip(self.levels, self.downsample, strict=True)):
            extract = self.extraction[0 if self.is_shared else index]
            features.append(downsample(extract(pyramid[level - 1])))  # [B, 4C, H/8, W/8]
        return self.aggregation(torch.cat(features, dim=1))  # [B, 12C, H/8, W/8] -> [B, 2 * latent_channels, H/8, W/8]


AnyEncoder = Encoder | WaveletEncoder


def build_encoder(config: LiteVAEConfig) -> AnyEncoder:
    """The encoder of a LiteVAE: the paper's, or one without parameters."""
    return Encoder(config) if config.encoder_type == "learned" else WaveletEncoder(config)
