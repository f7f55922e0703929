"""Tiles that overlap and are faded into each other where they do, as diffusers' AutoencoderKL: seams are softened, not
absent, since each tile is normalised and attended to by itself.

image -> [DWT -> feature extraction -> aggregation] -> latent -> [decoder] -> losses
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

_blend_down: Any = AutoencoderKL.blend_v
_blend_right: Any = AutoencoderKL.blend_h


def by_blended_tiles(run: Callable[[Tensor], Tensor], whole: Tensor, side: int, overlap: float, pixels: int) -> Tensor:
    """run(whole) [B, C, H, W], approximately.

    Args:
        run: encoder or decoder.
        whole: its input.
        side: of a tile, in latents; `overlap`, at least 0 and below 1, is the share of it that the next tile has too.
        pixels: positions of `whole` to a latent: 1 for a decoder.
    """
    step = max(1, int(side * (1 - overlap)))
    height, width = (size // pixels for size in whole.shape[-2:])
    strips: list[Tensor] = []
    above: list[Tensor] = []
    for row in range(0, height, step):
        tiles: list[Tensor] = []
        kept: list[Tensor] = []
        for index, column in enumerate(range(0, width, step)):
            rows, columns = (slice(first * pixels, (first + side) * pixels) for first in (row, column))
            tile = run(whole[:, :, rows, columns])
            scale = tile.shape[-1] / (min(side, width - column))  # positions of the result to a latent
            fade, limit = int((side - step) * scale), int(step * scale)
            if above:
                tile = _blend_down(None, above[index], tile, fade)
            if tiles:
                tile = _blend_right(None, tiles[-1], tile, fade)
            tiles.append(tile)
            kept.append(tile[:, :, :limit, :limit])
        above = tiles
        strips.append(torch.cat(kept, dim=3))
    return torch.cat(strips, dim=2).contiguous(memory_format=torch.channels_last)
