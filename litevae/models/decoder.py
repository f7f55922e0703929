"""The decoder, latent to image: Stable Diffusion's, with GroupNorm or self-modulated convolutions.

image -> DWT -> feature extraction -> aggregation -> latent -> [decoder] -> losses

Parameter names are those of diffusers' Decoder.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.checks import check_latent
from litevae.config import LiteVAEConfig, Normalization
from litevae.models.blocks import (
    GradientCheckpointing,
    GroupNorm,
    GroupNormSiLU,
    ResBlock,
    group_count,
    keep_variance,
    set_outputs,
)

# Nearest upsampling and SMOOTH, time after time, make the quadratic B-spline of what they start from (Chaikin 1974).
# Its means over the latent's blocks would be [1 4 1] / 6 of the L it is to show: SHARPEN undoes most of that first.
SMOOTH = torch.tensor([1.0, 2.0, 1.0]) / 4
SHARPEN = torch.tensor([-1.0, 6.0, -1.0]) / 4
# L and H of an image row x after nearest upsampling and SMOOTH, as filters of x: the pixels are (x[i-1] + 3 x[i]) / 4
# and (3 x[i] + x[i+1]) / 4, of which the DWT takes half the sum and half the difference.
SMOOTH_BANDS = torch.tensor([1.0, 6.0, 1.0]) / 8, torch.tensor([1.0, 0.0, -1.0]) / 8
CONSTANT = 16.0  # in the last norm's groups


def pair_stride(config: LiteVAEConfig) -> int:
    """Channels that carry one of the image's to the last convolution: two, or a group of the norm before it."""
    width = config.block_out_channels[0]
    return width // group_count(width) if config.has_outer_norm else 2


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
        self.output_type, self.pair_stride = config.output_type, pair_stride(config)
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

    def start_residual(self, low_pass: Tensor | None = None) -> None:
        """Set the weights so that the decoder is nearly linear and keeps the variance of a latent (initialize.py).

        With `low_pass` [out_channels, latent_channels], which makes L of the last level of a latent, the result is this
        L, interpolated by SHARPEN and SMOOTH. Every width must be at least `pair_stride` for each of the out_channels,
        and `pair_stride` not 1, nor 2 with a norm before the last convolution.
        """
        carried = 0 if low_pass is None else self.pair_stride * len(low_pass)
        keep_variance(self.conv_in)
        keep_variance(self.conv_out)
        for module in self.modules():
            if isinstance(module, ResBlock):
                module.start_residual(carried)
            elif isinstance(module, Upsample):
                keep_variance(module.conv)
                set_outputs(module.conv, torch.eye(carried), torch.outer(SMOOTH, SMOOTH))
        if low_pass is not None:
            self._start_upsampling(low_pass)

    def _start_upsampling(self, low_pass: Tensor) -> None:
        """Into the carried channels, and out of them: through the last SiLU as pairs, silu(c) - silu(-c) = c."""
        channels = len(low_pass)
        pair = torch.zeros(self.pair_stride, 1)
        pair[:2, 0] = torch.tensor([1.0, -1.0])
        pairs = torch.kron(torch.eye(channels), pair)  # [carried, channels]
        set_outputs(self.conv_in, pairs @ low_pass, torch.outer(SHARPEN, SHARPEN))
        for attention in self.mid_block.attentions:
            cast(SelfAttention, attention).start_residual()
        if isinstance(self.conv_norm_out, GroupNormSiLU):
            self._hold_scale(channels)
        if self.output_type == "image":
            set_outputs(self.conv_out, pairs.T)
            return
        low, high = SMOOTH_BANDS
        for band, (rows, columns) in enumerate([(low, low), (high, low), (low, high), (high, high)]):  # L H V D
            set_outputs(self.conv_out, pairs.T, torch.outer(rows, columns), first=band * channels)

    @torch.no_grad()
    def _hold_scale(self, channels: int) -> None:
        """Put constants beside each pair into its group of the last norm, whose affine map undoes what it does to c.

        A group is c, -c, and +-CONSTANT in turn. Its scale is the same for every image but for a share of about
        mean(c^2) / CONSTANT^2, its mean for every image.
        """
        norm, before = cast(GroupNormSiLU, self.conv_norm_out), cast(Any, self.up_blocks[-1]).resnets[-1].conv2
        group = torch.cat([torch.zeros(2), CONSTANT * (-1.0) ** torch.arange(self.pair_stride - 2)])
        for channel in range(channels):
            first = channel * self.pair_stride
            before.bias[first : first + self.pair_stride] = group
            norm.weight[first : first + 2] = group.std(correction=0)
            norm.bias[first : first + 2] = group.mean()


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

    def start_residual(self) -> None:
        """Add nothing yet."""
        for parameter in self.to_out.parameters():
            nn.init.zeros_(parameter)


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
