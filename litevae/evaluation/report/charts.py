"""Where do the lines, dots and ticks of a chart lie? templates/parts.html draws them as SVG, in the page's colours."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from litevae.evaluation.report.results import is_number
from litevae.evaluation.report.wording import number

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40  # margins, for the ticks' labels


@dataclass(frozen=True)
class Curve:
    """A line of a chart."""

    label: str
    points: Sequence[tuple[float, float]]
    series: int | None
    """Which model's colour it has; None: no model's, it is gray and dashed."""


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    says: str


@dataclass(frozen=True)
class Line:
    """A curve in the chart's pixels."""

    series: int | None
    path: str
    dots: list[Dot]


@dataclass(frozen=True)
class Chart:
    title: str
    says: str
    """All its values, for readers who do not see it."""
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(
    title: str,
    x_label: str,
    curves: Sequence[Curve],
    x_ticks: Sequence[float],
    write: Callable[[float], str] = number,
    log_x: bool = False,
    log_y: bool = False,
) -> Chart | None:
    """A chart of the points that can be drawn; None where no curve has two.

    Args:
        write: how a value is written beside its dot.
        log_x, log_y: logarithmic axes, on which numbers up to 0 are not drawn.
    """

    def drawable(point: tuple[float, float]) -> bool:
        return all(
            is_number(value) and (value > 0 or not log) for value, log in zip(point, (log_x, log_y), strict=True)
        )

    kept = [(curve, [point for point in curve.points if drawable(point)]) for curve in curves]
    if max((len(points) for _, points in kept), default=0) < 2:
        return None
    every = [point for _, points in kept for point in points]
    place_x = _scale([*x_ticks, *(x for x, _ in every)], log_x, LEFT + 8, WIDTH - RIGHT - 8)
    ticks = _ticks([y for _, y in every], log_y)
    place_y = _scale([*ticks, *(y for _, y in every)], log_y, HEIGHT - BOTTOM, TOP)
    lines = []
    for curve, points in kept:
        places = [(place_x(x), place_y(y)) for x, y in points]
        dots = [
            Dot(x, y, f"{curve.label}, {number(at)}: {write(value)}")
            for (x, y), (at, value) in zip(places, points, strict=True)
        ]
        path = " ".join(f"{'L' if index else 'M'}{x} {y}" for index, (x, y) in enumerate(places))
        lines.append(Line(curve.series, path, dots))
    return Chart(
        title,
        "; ".join(dot.says for line in lines for dot in line.dots),
        x_label,
        [(place_x(tick), number(tick)) for tick in x_ticks],
        [(place_y(tick), f"{tick:.4g}") for tick in ticks],
        lines,
    )


def _scale(values: Sequence[float], log: bool, start: float, end: float) -> Callable[[float], float]:
    """The smallest of `values` to `start`, the largest to `end`, rounded to a tenth of a pixel."""
    onto: Callable[[float], float] = math.log if log else float
    low, high = onto(min(values)), onto(max(values))

    def place(value: float) -> float:
        share = (onto(value) - low) / (high - low) if high > low else 0.5
        return round(start + share * (end - start), 1)

    return place


def _ticks(values: Sequence[float], log: bool) -> list[float]:
    """Round numbers around `values`, at most six."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    if not log:
        pad = (high - low or abs(high) or 1) * 0.06
        return [float(tick) for tick in MaxNLocator(4).tick_values(low - pad, high + pad)]
    powers = MaxNLocator(4, integer=True).tick_values(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    return [10.0**power for power in powers]
