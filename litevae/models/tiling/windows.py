"""Which positions of its input does a stretch of a layer's output read? One axis, rows or columns, at a time."""

from dataclasses import dataclass

Span = tuple[int, int]  # positions [first, last) of an axis


@dataclass(frozen=True)
class Window:
    """Output position i reads the input positions from stride i - padding on, `kernel` of them.

    With `up` above 1 it reads position i // up alone. The layer makes its output in groups of `align` positions.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    up: int = 1
    align: int = 1

    def made(self, span: Span) -> Span:
        """The whole groups of output positions that hold `span`."""
        return span[0] // self.align * self.align, -(-span[1] // self.align) * self.align

    def read(self, span: Span) -> Span:
        """The input positions that `made(span)` reads; the padding is below 0, or beyond the input's last."""
        first, last = self.made(span)
        if self.up > 1:
            return first // self.up, last // self.up
        return first * self.stride - self.padding, (last - 1) * self.stride - self.padding + self.kernel

    def size(self, input_size: int) -> int:
        """Of the whole output."""
        if self.up > 1:
            return input_size * self.up
        return (input_size + 2 * self.padding - self.kernel) // self.stride + 1

    def ready(self, available: int, input_size: int) -> int:
        """How many output positions can be made of the first `available` input positions."""
        if available == input_size:
            return self.size(input_size)
        if self.up > 1:
            return available * self.up
        return max(0, (available + self.padding - self.kernel) // self.stride + 1) // self.align * self.align


POINT = Window()
UPSAMPLED = Window(up=2, align=2)


def clip(span: Span, size: int) -> Span:
    """The positions of `span` that an axis of `size` has."""
    return max(span[0], 0), min(span[1], size)


def hull(one: Span, other: Span) -> Span:
    """The shortest stretch that holds both, of which an empty one needs nothing."""
    if one[0] >= one[1]:
        return other
    if other[0] >= other[1]:
        return one
    return min(one[0], other[0]), max(one[1], other[1])


def missing(span: Span, size: int) -> Span:
    """How many positions of `span` lie before and after an axis of `size`: the zeros of a convolution's padding."""
    return max(-span[0], 0), max(span[1] - size, 0)
