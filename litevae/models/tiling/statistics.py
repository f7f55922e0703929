"""A decoder with GroupNorm or attention in tiles, with the statistics of the whole image. An experiment.

image -> DWT -> feature extraction -> aggregation -> latent -> [decoder] -> losses

What is at the latent's resolution, attention among it, runs whole. From there to each upsampling the map is kept, and
for each GroupNorm in between all tiles are computed once up to it, for the sums of its input: the price is arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.blocks import GroupNorm, GroupNormSiLU
from litevae.models.decoder import Decoder, UpBlock
from litevae.models.tiling.layers import Layers, activate_part
from litevae.models.tiling.rows import by_tiles, tiles
from litevae_kernels.formats import arithmetic_dtype


class WholeNorms:
    """GroupNorms by statistics that were gathered before: scale and shift [B, C, 1, 1] of each."""

    def __init__(self) -> None:
        self._lines: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def __call__(self, activation: nn.Module, x: Tensor) -> Tensor:
        if not isinstance(activation, GroupNorm):
            return activate_part(activation, x)
        scale, shift = self._lines[activation]
        y = x.to(scale.dtype) * scale + shift
        y = F.silu(y) if isinstance(activation, GroupNormSiLU) else y
        return y.to(x.dtype)

    def gather(self, norm: GroupNorm, layers: Layers, value: int, whole: Tensor, side: int) -> None:
        """Of `value`, which `layers` make of `whole`, tile by tile."""
        positions = math.prod(layers.sizes(size)[value] for size in whole.shape[-2:])
        sums: Tensor | None = None
        for _, _, tile in tiles(layers.until(value), whole, side):
            part = tile.double().flatten(2)  # [B, C, n]
            added = torch.stack([part.sum(dim=2), part.square().sum(dim=2)])  # [2, B, C]
            sums = added if sums is None else sums + added
        assert sums is not None
        groups = sums.unflatten(2, (norm.num_groups, -1)).mean(dim=3) / positions  # [2, B, G]
        mean, variance = groups[0], groups[1] - groups[0].square()
        channels = norm.num_channels // norm.num_groups
        scale = (variance.clamp_min(0) + norm.eps).rsqrt().repeat_interleave(channels, dim=1) * norm.weight.double()
        shift = norm.bias.double() - mean.repeat_interleave(channels, dim=1) * scale  # [B, C]
        dtype = arithmetic_dtype(whole.dtype)
        self._lines[norm] = scale[..., None, None].to(dtype), shift[..., None, None].to(dtype)


def by_whole_statistics(decoder: Decoder, latent: Tensor, side: int) -> Tensor:
    """decoder(latent) up to rounding, in tiles of `side` latents."""
    x = decoder.conv_in(latent.contiguous(memory_format=torch.channels_last))
    x = decoder.mid_block(x)  # [B, C, h, w]
    for norms, layers in stages(decoder):
        for activation, value in layers.activated:
            if isinstance(activation, GroupNorm):
                norms.gather(activation, layers, value, x, side * x.shape[-2] // latent.shape[-2])
        x = by_tiles(layers, x, side * x.shape[-2] // latent.shape[-2])
    return x


def stages(decoder: Decoder) -> list[tuple[WholeNorms, Layers]]:
    """What follows the middle of the decoder, cut before each upsampling."""
    norms = WholeNorms()
    found, layers, value = [], Layers(norms), 0
    for block in cast(Iterable[UpBlock], decoder.up_blocks):
        for resnet in block.resnets:
            value = layers.res_block(resnet, value)
        for upsample in block.upsamplers:
            found.append((norms, layers))
            layers = Layers(norms)
            value = layers.upsample(upsample, 0)
    layers.convolution(decoder.conv_out, value, before=decoder.conv_norm_out)
    return [*found, (norms, layers)]
