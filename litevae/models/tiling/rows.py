"""A network's result from top to bottom, in memory that does not depend on the height: all of it, or a band of columns.

image -> [DWT -> feature extraction -> aggregation] -> latent -> [decoder] -> losses

Every value keeps the rows that a layer has still to read, two for each 3x3 convolution, so that no row is computed
twice. Of the columns a band needs more than its own: the halo is what the layers' windows add up to, and each layer
leaves behind what it alone needed of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from litevae.models.tiling.layers import Layers
from litevae.models.tiling.partial_conv2d import Place
from litevae.models.tiling.windows import Span, clip, hull, missing


def stream_rows(
    layers: Layers, strips: Iterable[Tensor], height: int, width: int, columns: Span | None = None
) -> Iterator[Tensor]:
    """The result in strips of rows, [B, C', n, W'] each, n at least 1 and about that of the input's strips.

    Args:
        layers: the network.
        strips: the input [B, C, height, width] in strips of rows.
        height, width: of the input.
        columns: those of the result that are wanted; None: all.
    """
    stream = _Stream(layers, height, width, columns)
    for strip in strips:
        yield from stream.push(strip)
    yield from stream.finish()


def by_tiles(layers: Layers, whole: Tensor, side: int) -> Tensor:
    """The whole result in bands of columns, each in strips of rows: `side` rows of `whole`, or of the result where
    that is smaller, and as many columns, at the most."""
    height, width = (layers.sizes(size)[-1] for size in whole.shape[-2:])
    result: Tensor | None = None
    for columns, row, tile in tiles(layers, whole, side):
        if result is None:
            shape = (*tile.shape[:2], height, width)
            result = torch.empty(shape, dtype=tile.dtype, device=tile.device, memory_format=torch.channels_last)
        result[:, :, row : row + tile.shape[2], slice(*columns)] = tile
    assert result is not None
    return result


def tiles(layers: Layers, whole: Tensor, side: int) -> Iterator[tuple[Span, int, Tensor]]:
    """(columns, first row, tile) of the result."""
    height, width = whole.shape[-2:]
    result_width = layers.sizes(width)[-1]
    up, down = max(result_width // width, 1), max(width // result_width, 1)
    for first, last in _bands(result_width // up, side):
        columns, row = (first * up, last * up), 0
        for tile in stream_rows(layers, whole.split(side * down, dim=2), height, width, columns):
            yield columns, row, tile
            row += tile.shape[2]


def _bands(size: int, side: int) -> Iterator[Span]:
    """The fewest of at most `side` positions, as equal as they can be."""
    count = -(-size // side)
    yield from ((index * size // count, (index + 1) * size // count) for index in range(count))


class _Stream:
    """What every value of `layers` holds between two strips."""

    def __init__(self, layers: Layers, height: int, width: int, columns: Span | None) -> None:
        self.layers = layers
        self.heights, self.widths = layers.sizes(height), layers.sizes(width)
        self.columns = spans_read(layers, columns or (0, self.widths[-1]), self.widths)
        self.rows: list[Span] = [(0, 0) for _ in self.heights]  # the first that is held, and how many there were
        self.parts: dict[int, Tensor] = {}
        self.readers = [layers.readers(value) for value in range(len(self.heights))]
        self.most_rows = 1

    def push(self, strip: Tensor) -> Iterator[Tensor]:
        """More rows of the input; what they make ready of the result."""
        self.most_rows = max(self.most_rows, strip.shape[2])
        self._append(0, strip[:, :, :, slice(*self.columns[0])])
        return self._advance()

    def finish(self) -> Iterator[Tensor]:
        """The last rows, which waited for others below them."""
        while self.rows[-1][1] < self.heights[-1]:
            yield from self._advance()

    def _advance(self) -> Iterator[Tensor]:
        for value, layer in enumerate(self.layers.list, start=1):
            done, align = self.rows[value][1], layer.windows[-1].align
            most = -(-self.most_rows * self.heights[value] // self.heights[0])
            ready = min(
                window.ready(self.rows[source][1], self.heights[source])
                for source, window in zip(layer.inputs, layer.windows, strict=True)
            )
            ready = min(ready, done + -(-most // align) * align)
            if ready > done:
                self._append(value, self._make(value, (done, ready)))
                for source in {*layer.inputs}:
                    self._forget(source)
        result = len(self.heights) - 1
        if result in self.parts:
            self.rows[result] = self.rows[result][1], self.rows[result][1]
            yield self.parts.pop(result)

    def _make(self, value: int, rows: Span) -> Tensor:
        layer, columns = self.layers.list[value - 1], self.columns[value]
        inputs: list[Tensor] = []
        place = Place((0, 0, 0, 0), (0, 0))
        for source, window in zip(layer.inputs, layer.windows, strict=True):
            whole = self.heights[source], self.widths[source]
            read = window.read(rows), window.read(columns)
            (top, bottom), (left, right) = (missing(span, size) for span, size in zip(read, whole, strict=True))
            place = Place((left, right, top, bottom), whole)
            wanted = [clip(span, size) for span, size in zip(read, whole, strict=True)]
            inputs.append(_crop(self.parts[source], (self.rows[source], self.columns[source]), wanted))
        made = [layer.windows[-1].made(span) for span in (rows, columns)]
        return _crop(layer.run(inputs, place), made, (rows, columns))

    def _append(self, value: int, new: Tensor) -> None:
        self.parts[value] = torch.cat([self.parts[value], new], dim=2) if value in self.parts else new
        self.rows[value] = self.rows[value][0], self.rows[value][1] + new.shape[2]

    def _forget(self, value: int) -> None:
        """The rows that no layer has still to read."""
        first, end = self.rows[value]
        keep = end
        for reader, window in self.readers[value]:
            done = self.rows[reader][1]
            if done < self.heights[reader]:
                keep = min(keep, max(window.read((done, done + 1))[0], 0))
        if keep == end:
            self.parts.pop(value, None)
        elif keep > first:  # a copy, for a view would keep all of them
            self.parts[value] = self.parts[value][:, :, keep - first :].clone(memory_format=torch.channels_last)
        self.rows[value] = max(keep, first), end


def spans_read(layers: Layers, span: Span, sizes: Sequence[int]) -> list[Span]:
    """The positions of every value, of these sizes along an axis, that `span` of the last one reads."""
    needed: list[Span] = [(0, 0) for _ in sizes]
    needed[-1] = span
    for value in range(len(layers.list), 0, -1):
        layer = layers.list[value - 1]
        for source, window in zip(layer.inputs, layer.windows, strict=True):
            needed[source] = hull(needed[source], clip(window.read(needed[value]), sizes[source]))
    return needed


def _crop(part: Tensor, held: Sequence[Span], wanted: Sequence[Span]) -> Tensor:
    """The rows and columns `wanted` of a part that has those `held`, without a copy."""
    rows, columns = (slice(span[0] - own[0], span[1] - own[0]) for own, span in zip(held, wanted, strict=True))
    return part[:, :, rows, columns]
