"""How much memory does a part of the model take, and which tile, strip or slice fits into a budget?

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses

Counted on meta tensors: the tensors of one sample alive at once, without parameters, gradients or autocast.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from litevae.config import LiteVAEConfig
from litevae.cost import peak_tensor_bytes
from litevae.models.decoder import Decoder
from litevae.models.tiling.layers import Layers, decoder_layers, encoder_layers
from litevae.models.tiling.rows import spans_read, stream_rows
from litevae.models.tiling.windows import Span

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


def largest_tile(build: Build, config: LiteVAEConfig, dtype: torch.dtype, budget: int, exact: bool = True) -> int:
    """The side of the largest of `SIDES` whose tile takes at most `budget` bytes, or the first; in latents.

    exact: of an exact tile with its halo, instead of one that is computed by itself.
    """
    pixels = _pixels(build, config)

    def takes(side: int) -> int:
        if not exact:
            return bytes_per_sample(build, config, side * pixels, side * pixels, dtype)
        return _tile_bytes(build, config, side, dtype)

    return _largest(SIDES, takes, budget)


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


@functools.lru_cache(maxsize=64)
def _tile_bytes(build: Build, config: LiteVAEConfig, side: int, dtype: torch.dtype) -> int:
    """Of a tile inside: a band of `side` latents, in strips of as many rows."""
    with _disable_current_modes(), torch.device("meta"), torch.no_grad():
        layers = _layers(build, config, dtype)
        read, halo = side * _pixels(build, config), _halo(layers, build, config)
        width = read + 2 * halo
        made = [layers.sizes(size)[-1] for size in (halo, halo + read)]
        return _stream_bytes(layers, build, config, (read, width), dtype, (made[0], made[1]))


@functools.lru_cache(maxsize=64)
def _strip_bytes(build: Build, config: LiteVAEConfig, rows: int, width: int, dtype: torch.dtype) -> int:
    with _disable_current_modes(), torch.device("meta"), torch.no_grad():
        shape = rows * _pixels(build, config), width
        return _stream_bytes(_layers(build, config, dtype), build, config, shape, dtype)


def _stream_bytes(
    layers: Layers,
    build: Build,
    config: LiteVAEConfig,
    shape: tuple[int, int],
    dtype: torch.dtype,
    columns: Span | None = None,
) -> int:
    """Of a stream of strips of `shape`, long enough for all layers to be at work."""
    rows, width = shape
    count = -(-2 * _halo(layers, build, config) // rows) + 3

    def stream(strip: Tensor) -> None:
        for _ in stream_rows(layers, itertools.repeat(strip, count), count * rows, width, columns):
            pass

    return peak_tensor_bytes(stream, torch.empty(1, _channels(build, config), rows, width, dtype=dtype))


def _halo(layers: Layers, build: Build, config: LiteVAEConfig) -> int:
    """How far a result sees beyond its own place, in positions of the input, up to whole latents."""
    size, pixels = 2**12, _pixels(build, config)
    sizes = layers.sizes(size)
    first, _ = spans_read(layers, (sizes[-1] // 2, sizes[-1] // 2 + 1), sizes)[0]
    return -(-(size // 2 - first) // pixels) * pixels + pixels


def _pixels(build: Build, config: LiteVAEConfig) -> int:
    """Positions of the input to a latent."""
    return 1 if build is Decoder else config.downsampling


def _layers(build: Build, config: LiteVAEConfig, dtype: torch.dtype) -> Layers:
    part = build(config).to(dtype).eval()
    return decoder_layers(part) if isinstance(part, Decoder) else encoder_layers(part)  # type: ignore[arg-type]


def _channels(build: Build, config: LiteVAEConfig) -> int:
    return config.latent_channels if build is Decoder else config.in_channels
