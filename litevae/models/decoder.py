"""The decoder, latent to image: Stable Diffusion's, with GroupNorm or self-modulated convolutions.

image -> DWT -> feature extraction -> aggregation -> latent -> [decoder] -> losses

Parameter names are those of diffusers' Decoder.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.checks import check_latent
from litevae.config import LiteVAEConfig, Normalization
from litevae.models.blocks import GradientCheckpointing, GroupNorm, GroupNormSiLU, ResBlock


class Decoder(nn.Module):
    """latent [B, latent_channels, h, w] -> image [B, out_channels, 8h, 8w] (section 4.1).

    It is 2^n times as large with n + 1 widths in `block_out_channels`. With `output_type="wavelet"` the last upsampling
    goes, and the result is the image's level-1 sub-bands, divided by 2 and packed L H V D: [B, 4 * out_channels, 4h,
    4w]. All of it is in channels_last, the result too.

    Takes the weights of Stable Diffusion's decoder as they are; the defaults have its 49,490,179 parameters:

    >>> from diffusers import AutoencoderKL
    >>> widths = (32, 32, 64, 64)
    >>> vae = AutoencoderKL(block_out_channels=widths, up_block_types=("UpDecoderBlock2D",) * 4,
    ...                     down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=2)
    >>> Decoder(LiteVAEConfig(block_out_channels=widths)).load_state_dict(vae.decoder.state_dict())
    <All keys matched successfully>
    """

    def __init__(self, config: LiteVAEConfig) -> None:
        super().__init__()
        self.latent_channels = config.latent_channels
        is_wavelet = config.output_type == "wavelet"
        widths = config.block_out_channels[::-1]
        normalization, dropout = config.decoder_normalization, config.dropout
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(config, widths[0])
        upsamplings = len(widths) - (2 if is_wavelet else 1)
        self.up_blocks = nn.ModuleList(
            UpBlock(before, width, config.layers_per_block + 1, index < upsamplings, dropout, normalization)
            for index, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
        )
        self.conv_norm_out = GroupNormSiLU(widths[-1]) if config.has_outer_norm else nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels * (4 if is_wavelet else 1), 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def check(self, latent: object) -> None:
        """Raise the TypeError or ValueError of `forward`, for callers that touch the latent before it."""
        check_latent(latent, self.latent_channels)

    def forward(self, latent: Tensor) -> Tensor:
        self.check(latent)
        x = self.conv_in(latent.contiguous(memory_format=torch.channels_last))  # [B, C, h, w]
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x)  # [B, C', 2h, 2w]; the last one keeps the size
        return self.conv_out(self.conv_norm_out(x))  # the image, or its sub-bands


class MidBlock(GradientCheckpointing):
    """ResBlock, self-attention (unless `mid_block_add_attention` is False), ResBlock: [B, C, h, w] -> the same."""

    def __init__(self, config: LiteVAEConfig, channels: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResBlock(channels, channels, config.dropout, config.decoder_normalization) for _ in range(2)
        )
        attentions = [SelfAttention(channels, config.has_outer_norm)] if config.mid_block_add_attention else []
        self.attentions = nn.ModuleList(attentions)

    def forward(self, x: Tensor) -> Tensor:
        x = self.run(self.resnets[0], x)
        for attention in self.attentions:
            x = attention(x)
        return self.run(self.resnets[1], x)


class SelfAttention(nn.Module):
    """x + single-head self-attention over all positions, scale C^-0.5: [B, C, h, w] -> the same."""

    def __init__(self, channels: int, has_norm: bool) -> None:
        super().__init__()
        self.group_norm = GroupNorm(channels) if has_norm else nn.Identity()
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2).unsqueeze(1)  # [B, 1, hw, C]
        attended = F.scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + self.to_out[0](attended.squeeze(1)).transpose(1, 2).reshape(x.shape)  # [B, hw, C] -> [B, C, h, w]


class UpBlock(GradientCheckpointing):
    """ResBlocks, then nearest-neighbour upsampling and a 3x3 convolution: [B, in, h, w] -> [B, out, 2h, 2w].

    Without `add_upsample`, the ResBlocks alone: [B, out, h, w].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        add_upsample: bool,
        dropout: float,
        normalization: Normalization,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResBlock(in_channels if layer == 0 else out_channels, out_channels, dropout, normalization)
            for layer in range(layers)
        )
        self.upsamplers = nn.ModuleList([Upsample(out_channels)] if add_upsample else [])

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.resnets, *self.upsamplers):
            x = self.run(block, x)
        return x


class Upsample(nn.Module):
    """Nearest-neighbour upsampling and a 3x3 convolution: [B, C, h, w] -> [B, C, 2h, 2w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # [B, C, 2h, 2w]
