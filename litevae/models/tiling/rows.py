"""All rows of a network's result from top to bottom, in memory that does not depend on the height.

image -> [DWT -> feature extraction -> aggregation] -> latent -> [decoder] -> losses

Every value keeps the rows that a layer has still to read: two for each 3x3 convolution. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from litevae.models.tiling.layers import Layers
from litevae.models.tiling.region import run_layer
from litevae.models.tiling.windows import Span, clip


def stream_rows(layers: Layers, strips: Iterable[Tensor], height: int, width: int) -> Iterator[Tensor]:
    """The result in strips of rows, [B, C', n, W'] each, n as many as are ready.

    Args:
        layers: the network.
        strips: the input [B, C, height, width] in strips of rows, at least one row each.
        height, width: of the input.
    """
    sizes = list(zip(layers.sizes(height), layers.sizes(width), strict=True))
    readers = [layers.readers(value) for value in range(len(sizes))]
    parts: dict[int, Tensor] = {}
    rows: list[Span] = [(0, 0) for _ in sizes]  # of each value: the first one held, and how many there were so far

    def append(value: int, new: Tensor) -> None:
        parts[value] = torch.cat([parts[value], new], dim=2) if value in parts else new
        rows[value] = rows[value][0], rows[value][1] + new.shape[2]

    def forget(value: int) -> None:
        """The rows that no layer has still to read."""
        first, end = rows[value]
        keep = end
        for reader, window in readers[value]:
            done = rows[reader][1]
            if done < sizes[reader][0]:
                keep = min(keep, clip(window.read((done, done + 1)), end)[0])
        if keep == end:
            parts.pop(value, None)
        elif keep > first:
            parts[value] = parts[value][:, :, keep - first :].clone(memory_format=torch.channels_last)
        rows[value] = max(keep, first), end

    for strip in strips:
        append(0, strip)
        for number, layer in enumerate(layers.list, start=1):
            done = rows[number][1]
            ready = min(
                window.ready(rows[source][1], sizes[source][0])
                for source, window in zip(layer.inputs, layer.windows, strict=True)
            )
            if ready <= done:
                continue
            held = [(span, (0, size[1])) for span, size in zip(rows, sizes, strict=True)]
            append(number, run_layer(layer, parts, held, ((done, ready), (0, sizes[number][1])), sizes))
            for source in {*layer.inputs}:
                forget(source)
        result = len(sizes) - 1
        if result in parts:
            yield parts.pop(result)
            rows[result] = rows[result][1], rows[result][1]
    assert rows[-1][1] == sizes[-1][0], f"{rows[0][1]} of {height} rows came"
