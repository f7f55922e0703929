"""The NAFNet that may extract the features of a wavelet level, in place of a UNet (Table 18).

image -> DWT -> [feature extraction] -> aggregation -> latent -> decoder -> losses
"""

import torch
from torch import Tensor, nn

from litevae.models.blocks import LayerNorm
from litevae.models.feature_network import FeatureNetwork


class NAFNet(FeatureNetwork):
    """Blocks without nonlinear activations at one resolution: [B, in_channels, H, W] -> [B, out_channels, H, W].

    The paper names NAFSSR (Chu et al. 2022), whose backbone is such a flat stack, and neither its width nor its depth.
    A 3x3 convolution to `width`, `blocks` NAFBlocks, a 3x3 convolution. A block's channel attention pools over all
    positions: what a latent is depends on the whole image.

    >>> sum(p.numel() for p in NAFNet(12, 12, width=128, blocks=14).parameters())
    1692556
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, blocks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(NAFBlock(width, dropout) for _ in range(blocks))
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)  # [B, width, H, W]
        for block in self.blocks:
            x = self.run(block, x)
        return self.conv_out(x)  # [B, out_channels, H, W]


class NAFBlock(nn.Module):
    """x + beta * mixing(x), then the same with gamma * feed-forward: [B, C, H, W] -> the same (Chen et al. 2022).

    beta and gamma start at 0: a new block is the identity.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = ChannelNorm(channels)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.dropout = nn.Dropout(dropout)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = gate(self.conv2(self.conv1(self.norm1(x))))  # [B, C, H, W]
        hidden = hidden * self.attention(hidden.mean((2, 3), keepdim=True))  # a factor for each channel
        x = x + self.beta.to(x.dtype) * self.dropout(self.conv3(hidden))  # layerwise casting leaves beta in float32
        hidden = gate(self.conv4(self.norm2(x)))
        return x + self.gamma.to(x.dtype) * self.dropout(self.conv5(hidden))


class ChannelNorm(LayerNorm):
    """LayerNorm over the channels of each position: [B, C, H, W] -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        positions = input.permute(0, 2, 3, 1)  # [B, H, W, C], in channels_last as it lies in memory
        return super().forward(positions).permute(0, 3, 1, 2)


def gate(x: Tensor) -> Tensor:
    """The product of the two halves of the channels: [B, 2C, H, W] -> [B, C, H, W]."""
    first, second = x.chunk(2, dim=1)
    return first * second
