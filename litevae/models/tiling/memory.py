"""How much memory does a part of the model take, and which tile, strip or slice fits into a budget?

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses

Counted on meta tensors: the tensors of one sample alive at once, without parameters, gradients or autocast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from litevae.config import LiteVAEConfig
from litevae.cost import peak_tensor_bytes
from litevae.models.decoder import Decoder
from litevae.models.tiling.layers import Layers, decoder_layers, encoder_layers
from litevae.models.tiling.region import regions_read, run_region
from litevae.models.tiling.rows import stream_rows

Build = Callable[[LiteVAEConfig], nn.Module]
SIDES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # of tiles, in latents
ROWS = (1, 2, 4, 8, 16, 32)  # of strips, in latents


@functools.lru_cache(maxsize=64)
def bytes_per_sample(build: Build, config: LiteVAEConfig, height: int, width: int, dtype: torch.dtype) -> int:
    """Most bytes of tensors alive at once, per sample of [B, C, height, width]."""
    channels = _channels(build, config)
    with _disable_current_modes(), torch.device("meta"), torch.no_grad():  # no caller's counter sees these tensors
        part = build(config).to(dtype).eval()
        one, two = (peak_tensor_bytes(part, torch.empty(n, channels, height, width, dtype=dtype)) for n in (1, 2))
    return two - one


@functools.lru_cache(maxsize=64)
def largest_tile(build: Build, config: LiteVAEConfig, dtype: torch.dtype, budget: int, exact: bool = True) -> int:
    """The side of the largest of `SIDES` whose tile takes at most `budget` bytes, or the first; in latents.

    exact: of an exact tile with its halo, instead of one that is computed by itself.
    """
    pixels = 1 if build is Decoder else config.downsampling

    def takes(side: int) -> int:
        if not exact:
            return bytes_per_sample(build, config, side * pixels, side * pixels, dtype)
        return _tile_bytes(build, config, side, dtype)

    return _largest(SIDES, takes, budget)


@functools.lru_cache(maxsize=64)
def most_rows(build: Build, config: LiteVAEConfig, width: int, dtype: torch.dtype, budget: int) -> int:
    """The most of `ROWS` latents whose strip, `width` positions of the input wide, takes at most `budget` bytes."""
    return _largest(ROWS, lambda rows: _strip_bytes(build, config, rows, width, dtype), budget)


def _largest(sizes: tuple[int, ...], takes: Callable[[int], int], budget: int) -> int:
    largest = sizes[0]
    for size in sizes[1:]:
        if takes(size) > budget:
            break
        largest = size
    return largest


def _tile_bytes(build: Build, config: LiteVAEConfig, side: int, dtype: torch.dtype) -> int:
    with _disable_current_modes(), torch.device("meta"), torch.no_grad():
        layers = _layers(build, config, dtype)
        before, read, made = _inner(layers, side, 1 if build is Decoder else config.downsampling)
        size = before + read + before
        whole = torch.empty(1, _channels(build, config), size, size, dtype=dtype)
        offset = before * layers.sizes(2**12)[-1] // 2**12
        span = offset, offset + made
        return peak_tensor_bytes(lambda x: run_region(layers, x, (span, span)), whole)


def _strip_bytes(build: Build, config: LiteVAEConfig, rows: int, width: int, dtype: torch.dtype) -> int:
    pixels = 1 if build is Decoder else config.downsampling
    with _disable_current_modes(), torch.device("meta"), torch.no_grad():
        layers = _layers(build, config, dtype)
        before, read, _ = _inner(layers, rows, pixels)
        strips = -(-2 * before // read) + 3
        whole = torch.empty(1, _channels(build, config), read, width, dtype=dtype)

        def stream(strip: Tensor) -> None:
            def repeated() -> Iterator[Tensor]:
                yield from (strip for _ in range(strips))

            for _ in stream_rows(layers, repeated(), strips * read, width):
                pass

        return peak_tensor_bytes(stream, whole)


def _inner(layers: Layers, side: int, pixels: int) -> tuple[int, int, int]:
    """Of a tile of `side` latents inside: the halo and the side, in positions of the input, and the side made."""
    size = 2**12
    result = layers.sizes(size)[-1]
    made = side * pixels * result // size
    span = result // 2, result // 2 + made
    sizes = [(value, value) for value in layers.sizes(size)]
    first, last = regions_read(layers, (span, span), sizes)[0][0]
    read = side * pixels
    return -(-max(size // 2 - first, last - size // 2 - read) // pixels) * pixels, read, made


def _layers(build: Build, config: LiteVAEConfig, dtype: torch.dtype) -> Layers:
    part = build(config).to(dtype).eval()
    return decoder_layers(part) if isinstance(part, Decoder) else encoder_layers(part)  # type: ignore[arg-type]


def _channels(build: Build, config: LiteVAEConfig) -> int:
    return config.latent_channels if build is Decoder else config.in_channels
