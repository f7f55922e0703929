"""The UNet at one resolution that extracts the features of a wavelet level, and that merges the levels.

image -> DWT -> [feature extraction -> aggregation] -> latent -> decoder -> losses
"""

from collections.abc import Sequence

from torch import Tensor, nn

from litevae.config import Normalization
from litevae.models.blocks import ResBlock
from litevae.models.feature_network import FeatureNetwork

BLOCKS_PER_MULTIPLIER = 2


class UNet(FeatureNetwork):
    """ResBlocks with skip connections, without resampling and attention (appendix G, Tables 23 and 24).

    [B, in_channels, H, W] -> [B, out_channels, H, W]. A 3x3 convolution to `channels`; two ResBlocks of width
    `channels * m` for each m in `multipliers`; two in the middle; for each m in reverse, two ResBlocks on
    concat(x, skip); a 3x3 convolution, without a norm before it. `normalization` is the ResBlocks'.

    >>> UNet(12, 12, channels=16, multipliers=(1, 2))(torch.zeros(1, 12, 4, 6)).shape
    torch.Size([1, 12, 4, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int,
        multipliers: Sequence[int],
        dropout: float = 0.0,
        normalization: Normalization = "group_norm",
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in multipliers for _ in range(BLOCKS_PER_MULTIPLIER)]
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.encoder_path = nn.ModuleList(
            ResBlock(before, width, dropout, normalization)
            for before, width in zip([channels, *widths], widths, strict=False)
        )
        self.middle = nn.Sequential(*(ResBlock(widths[-1], widths[-1], dropout, normalization) for _ in range(2)))
        # The i-th block from the end meets the skip of width widths[i]: the same width twice.
        backwards = widths[::-1]
        self.decoder_path = nn.ModuleList(
            ResBlock(before + width, width, dropout, normalization)
            for before, width in zip([backwards[0], *backwards], backwards, strict=False)
        )
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)  # [B, channels, H, W]; also a skip in appendix G, which has no block to take it
        skips: list[Tensor] = []
        for block in self.encoder_path:
            x = self.run(block, x)  # [B, width, H, W]
            skips.append(x)
        for block in self.middle:
            x = self.run(block, x)
        for block in self.decoder_path:
            x = self.run(block, x, skips.pop())  # x and skip stand for [B, x's width + skip's width, H, W]
        return self.conv_out(x)  # [B, out_channels, H, W]

    def start_residual(self, linear: Tensor | None = None) -> None:
        super().start_residual(linear)
        for block in (*self.encoder_path, *self.middle, *self.decoder_path):
            block.start_residual(carried=0 if linear is None else len(linear))
