"""A rectangle of a network's result, from the rectangle of its input that it reads, cropped layer by layer.

image -> [DWT -> feature extraction -> aggregation] -> latent -> [decoder] -> losses

The halo is what the layers' windows add up to, and each layer leaves behind what it alone needed of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from litevae.models.tiling.layers import Layer, Layers
from litevae.models.tiling.partial_conv2d import Place
from litevae.models.tiling.windows import Span, clip, hull, missing

Region = tuple[Span, Span]  # of rows and of columns


def tiles_of(height: int, width: int, side: int) -> Iterator[Region]:
    """The fewest tiles of at most `side` positions a side that cover [height, width], as equal as they can be."""
    yield from ((rows, columns) for rows in _spans(height, side) for columns in _spans(width, side))


def _spans(size: int, side: int) -> Iterator[Span]:
    count = -(-size // side)
    yield from ((index * size // count, (index + 1) * size // count) for index in range(count))


def by_tiles(layers: Layers, whole: Tensor, side: int) -> Tensor:
    """The whole result, tile by tile: `side` is that of a tile in positions of the input or, if it is finer, of the
    result."""
    height, width = (layers.sizes(size)[-1] for size in whole.shape[-2:])
    up = max(height // whole.shape[-2], 1)
    result: Tensor | None = None
    for rows, columns in tiles_of(height // up, width // up, side):
        region = _scaled(rows, up), _scaled(columns, up)
        tile = run_region(layers, whole, region)
        if result is None:
            shape = (*tile.shape[:2], height, width)
            result = torch.empty(shape, dtype=tile.dtype, device=tile.device, memory_format=torch.channels_last)
        result[:, :, slice(*region[0]), slice(*region[1])] = tile
    assert result is not None
    return result


def _scaled(span: Span, factor: int) -> Span:
    return span[0] * factor, span[1] * factor


def run_region(layers: Layers, whole: Tensor, region: Region) -> Tensor:
    """The part `region` of the result for the input `whole` [B, C, H, W]: [B, C', rows, columns]."""
    sizes = list(zip(*(layers.sizes(size) for size in whole.shape[-2:]), strict=True))  # of each value: height, width
    needed = regions_read(layers, region, sizes)
    last_reader = {source: number for number, layer in enumerate(layers.list, start=1) for source in layer.inputs}
    parts: dict[int, Tensor] = {0: crop(whole, ((0, sizes[0][0]), (0, sizes[0][1])), needed[0])}
    for number, layer in enumerate(layers.list, start=1):
        parts[number] = run_layer(layer, parts, needed, needed[number], sizes)
        for source in {*layer.inputs}:
            if last_reader[source] == number:
                del parts[source]
    return parts[len(layers.list)]


def regions_read(layers: Layers, region: Region, sizes: Sequence[tuple[int, int]]) -> list[Region]:
    """The region of every value that `region` of the last one reads."""
    needed: list[Region] = [((0, 0), (0, 0)) for _ in sizes]
    needed[-1] = region
    for number in range(len(layers.list), 0, -1):
        layer = layers.list[number - 1]
        for source, window in zip(layer.inputs, layer.windows, strict=True):
            rows, columns = (
                hull(before, clip(window.read(span), size))
                for before, span, size in zip(needed[source], needed[number], sizes[source], strict=True)
            )
            needed[source] = rows, columns
    return needed


def run_layer(
    layer: Layer, parts: dict[int, Tensor], held: Sequence[Region], region: Region, sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """`region` of the layer's output. `held`: which region of each value its part is."""
    inputs, padding, whole = [], (0, 0, 0, 0), (0, 0)
    for source, window in zip(layer.inputs, layer.windows, strict=True):
        read = window.read(region[0]), window.read(region[1])
        whole = sizes[source]
        (top, bottom), (left, right) = missing(read[0], whole[0]), missing(read[1], whole[1])
        padding = left, right, top, bottom
        inputs.append(crop(parts[source], held[source], (clip(read[0], whole[0]), clip(read[1], whole[1]))))
    made = layer.windows[-1].made(region[0]), layer.windows[-1].made(region[1])
    return crop(layer.run(inputs, Place(padding, whole)), made, region)


def crop(part: Tensor, held: Region, wanted: Region) -> Tensor:
    """`wanted` of a part that is the region `held`, without a copy."""
    (row, _), (column, _) = held
    (first_row, last_row), (first_column, last_column) = wanted
    return part[:, :, first_row - row : last_row - row, first_column - column : last_column - column]
