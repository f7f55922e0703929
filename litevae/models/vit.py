"""The vision transformer that may merge the wavelet levels, in place of a UNet (Table 20).

image -> DWT -> feature extraction -> [aggregation] -> latent -> decoder -> losses
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.checks import full_precision
from litevae.models.blocks import LayerNorm, set_outputs
from litevae.models.feature_network import FeatureNetwork

POSITIONS = 16  # a side of the learned ones: the latent of a 128x128 image
MLP_RATIO = 4
CONSTANT = 32.0  # in the tokens


class ViT(FeatureNetwork):
    """A transformer whose tokens are the positions of the latent: [B, in_channels, h, w] -> [B, out_channels, h, w].

    A 1x1 convolution to `width`, learned positions, `depth` blocks, a LayerNorm, a 3x3 convolution. The paper gives
    none of them; it prints 0.84 M parameters, which the defaults of `LiteVAEConfig` make, and says that such a network
    is bound to a resolution: there are 16x16 positions. At other sizes they are interpolated (bicubic), untrained.

    >>> sum(p.numel() for p in ViT(36, 8, width=128, depth=4, heads=4).parameters())
    840072
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, depth: int, heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, width, 1)
        self.positions = nn.Parameter(torch.empty(1, width, POSITIONS, POSITIONS))
        nn.init.trunc_normal_(self.positions, std=0.02)  # by itself: while it loads, diffusers makes it return None
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        positions = full_precision(self.positions)
        positions = F.interpolate(positions, x.shape[-2:], mode="bicubic")  # exact at their own size
        x = x + positions.to(x.dtype)  # [B, width, h, w]
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)  # [B, h * w, width]
        for block in self.blocks:
            tokens = self.run(block, tokens)
        x = self.norm(tokens).transpose(1, 2).unflatten(2, (height, width))  # [B, width, h, w]
        return self.conv_out(x)  # [B, out_channels, h, w]

    def start_residual(self, linear: Tensor | None = None) -> None:
        """See FeatureNetwork. `linear` needs a width of 2 n + 2, and is scaled by the LayerNorm, position by position.

        Its outputs c reach the norm as pairs, c and -c, whose difference is free of the mean. Half of the other
        channels are +-CONSTANT, which leaves a scale that is the same but for a share of about mean(c^2) / CONSTANT^2.
        Every norm multiplies all channels but these by it: blocks read what they would without constants.
        """
        super().start_residual()
        blocks = [cast(TransformerBlock, block) for block in self.blocks]
        for block in blocks:
            block.start_residual()
        if linear is None:
            return
        outputs, width = len(linear), self.conv_in.out_channels
        constants = (width - 2 * outputs + 1) // 2
        carried = 2 * outputs + constants
        token = torch.zeros(width)
        token[2 * outputs : carried] = CONSTANT * (-1.0) ** torch.arange(constants)
        scale = (token.var(correction=0) + (width - carried) / width).sqrt()  # the others have a variance of 1
        set_outputs(self.conv_in, torch.cat([linear, -linear, torch.zeros(constants, linear.shape[1])]))
        half = torch.eye(outputs) / 2
        set_outputs(self.conv_out, torch.cat([half, -half], dim=1))
        with torch.no_grad():
            cast(Tensor, self.conv_in.bias)[:carried] = token[:carried]
            self.positions[:, :carried] = 0.0
            for norm in (self.norm, *(norm for block in blocks for norm in (block.norm1, block.norm2))):
                norm.weight.copy_(torch.where(token == 0, scale, 1.0))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then the same with an MLP: tokens [B, N, C] -> the same (Dosovitskiy et al. 2021)."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)
        self.norm2 = LayerNorm(channels)
        self.linear1 = nn.Linear(channels, MLP_RATIO * channels)
        self.linear2 = nn.Linear(MLP_RATIO * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.to_qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1))  # [B, N, 3, heads, C / heads]
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # [B, heads, N, C / heads] each
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # [B, N, C]
        tokens = tokens + self.dropout(self.to_out(attended))
        return tokens + self.dropout(self.linear2(F.gelu(self.linear1(self.norm2(tokens)))))

    def start_residual(self) -> None:
        """Add nothing yet."""
        for last in (self.to_out, self.linear2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
