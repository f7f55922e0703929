"""Do the points of a chart lie where its ticks say?"""

import math
import re

import pytest

from litevae.evaluation.report.charts import Chart, Curve, line_chart


def points(chart: Chart, line: int = 0) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", chart.lines[line].path)]


def drawn(values: list[tuple[float, float]], **axes: bool) -> Chart:
    chart = line_chart("title", "x", [Curve("A", values, 0)], [x for x, _ in values], **axes)
    assert chart is not None
    return chart


def value_at(chart: Chart, y: float, log: bool = False) -> float:
    """What the axis says at y, from its lowest and highest tick."""
    (low_y, low), (high_y, high) = chart.y_ticks[0], chart.y_ticks[-1]
    start, end = (math.log(float(text)) if log else float(text) for text in (low, high))
    value = start + (y - low_y) / (high_y - low_y) * (end - start)
    return math.exp(value) if log else value


def test_sizes_are_spaced_by_their_logarithm() -> None:
    chart = drawn([(64, 20.0), (128, 25.0), (512, 21.0)], log_x=True)
    (a, _), (b, _), (c, _) = points(chart)
    assert c - b == pytest.approx(2 * (b - a), abs=0.2)  # rounded to a tenth of a pixel
    assert [text for _, text in chart.x_ticks] == ["64", "128", "512"]
    assert [x for x, _ in chart.x_ticks] == [a, b, c]


@pytest.mark.parametrize("values", [[20.0, 25.5, 21.3], [0.1, 0.1, 0.1], [-3.0, 0.0, 4.0], [1e-3, 2e-3, 1.5e-3]])
def test_values_lie_where_the_ticks_say(values: list[float]) -> None:
    chart = drawn([(float(x), y) for x, y in enumerate(values)])
    tick = abs(float(chart.y_ticks[1][1]) - float(chart.y_ticks[0][1]))
    for (_, y), value in zip(points(chart), values, strict=True):
        assert value_at(chart, y) == pytest.approx(value, abs=0.01 * tick)
        assert chart.top <= y <= chart.bottom
    assert 2 <= len(chart.y_ticks) <= 6
    assert chart.y_ticks[0][0] > chart.y_ticks[-1][0]  # y grows downwards


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    chart = drawn([(1, 0.9), (2, 0.02), (3, 0.0004)], log_y=True)
    assert {math.log10(float(text)) % 1 for _, text in chart.y_ticks} == {0.0}
    for (_, y), value in zip(points(chart), (0.9, 0.02, 0.0004), strict=True):
        assert value_at(chart, y, log=True) == pytest.approx(value, rel=0.01)


def test_what_cannot_be_drawn_is_left_out() -> None:
    curves = [Curve("A", [(1, math.nan), (2, 3.0), (3, 0.0), (4, math.inf), (5, 4.0)], 0), Curve("B", [], 1)]
    chart = line_chart("title", "x", curves, [1, 5], log_y=True)
    assert chart is not None
    assert [dot.says for dot in chart.lines[0].dots] == ["A, 2: 3", "A, 5: 4"]
    assert chart.says == "A, 2: 3; A, 5: 4"
    assert chart.lines[1].path == ""


def test_a_curve_needs_two_points() -> None:
    assert line_chart("title", "x", [Curve("A", [(1, 2.0)], 0), Curve("B", [(2, 2.0)], 1)], [1, 2]) is None
    assert line_chart("title", "x", [], []) is None
