"""What does the page show? Joins tables, curves, gallery and details, and fills templates/page.html with them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from litevae.evaluation.report import wording
from litevae.evaluation.report.charts import Chart, Curve, line_chart
from litevae.evaluation.report.details import panels
from litevae.evaluation.report.gallery import ERROR_SCALE, magma
from litevae.evaluation.report.items import gallery
from litevae.evaluation.report.latent_panels import Panel
from litevae.evaluation.report.results import check_comparable, check_results, labels, sizes_of
from litevae.evaluation.report.tables import (
    command_line,
    compared,
    made_tables,
    metrics_of,
    metrics_table,
    notices,
)
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import write_text

_TEMPLATES = Path(__file__).with_name("templates")


def write_report(
    path: str | os.PathLike[str], results: Sequence[tuple[str | os.PathLike[str], dict[str, Any]]]
) -> None:
    """Write one HTML file that needs no other: numbers, curves, pictures with sliders, and how it was all made.

    Args:
        results: (folder, content of its results.json) of a model, or of several to compare; pictures of the gallery
            that are missing in a folder are named in their place.

    Raises:
        ValueError: no results, `check_results` refuses some, or `check_comparable` refuses to compare them.
    """
    if not results:
        raise wrong_value("results", "have at least one entry", results)
    for folder, result in results:
        check_results(result, str(folder))
    check_comparable([result for _, result in results])
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: wording.visible(value) if _is_plain(value) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["number"] = wording.number
    page = environment.get_template("page.html").render(
        _content([(Path(folder), result) for folder, result in results])
    )
    write_text(Path(path), page)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Markup)


def _content(results: list[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """The variables of templates/page.html."""
    alone = [result for _, result in results]
    names, sizes = labels(alone), sizes_of(alone)
    warnings, missing = notices(alone)
    return {
        "names": names,
        "title": " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others",
        "data": alone[0]["data"],
        "sizes": sizes,
        "date": max(result["date"] for result in alone),
        "protocol": alone[0]["protocol"].get("name", ""),
        "tiles": _tiles(alone, sizes),
        "metrics": metrics_table(alone),
        "warnings": warnings,
        "missing": [(wording.metric_name(metric), need) for metric, need in missing],
        "curves": _curves(alone, names, sizes),
        "gallery": gallery(results, names),
        "details": _details(alone, names, sizes),
        "made": made_tables(alone),
        "commands": list(zip(names, map(command_line, alone), strict=True)),
        "error_percent": f"{100 * ERROR_SCALE:g}",
        "magma": ", ".join(f"rgb{colour}" for colour in magma(9)),
        "style": Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "script": Markup((_TEMPLATES / "script.js").read_text(encoding="utf-8")),
    }


@dataclass(frozen=True)
class Tile:
    """The best value of a metric."""

    header: str
    text: str
    models: list[int]
    """Which models reach it."""


def _tiles(results: list[dict[str, Any]], sizes: list[str]) -> list[Tile]:
    """A tile for each metric at the largest size."""
    tiles = []
    for metric in metrics_of(results) if sizes else ():
        values = [result["sizes"][sizes[-1]]["metrics"].get(metric) for result in results]
        cells = compared(metric, values)
        models = [index for index, cell in enumerate(cells) if cell.best]
        models = models or [index for index, value in enumerate(values) if value is not None]
        if models:
            tiles.append(Tile(wording.metric_header(metric), cells[models[0]].text, models))
    return tiles


def _curves(results: list[dict[str, Any]], names: list[str], sizes: list[str]) -> list[Chart]:
    """A chart for every metric over the sizes."""
    charts = []
    for metric in metrics_of(results):
        curves = [
            Curve(
                name,
                [
                    (float(size), result["sizes"][size]["metrics"][metric])
                    for size in sizes
                    if metric in result["sizes"][size]["metrics"]
                ],
                series,
            )
            for series, (name, result) in enumerate(zip(names, results, strict=True))
        ]
        chart = line_chart(
            wording.metric_header(metric),
            "side of the images [pixels]",
            curves,
            [float(size) for size in sizes],
            write=lambda value, metric=metric: wording.metric_value(metric, value),  # type: ignore[misc]
            log_x=True,
        )
        charts.extend([chart] if chart is not None else [])
    return charts


def _details(results: list[dict[str, Any]], names: list[str], sizes: list[str]) -> list[tuple[str, list[Panel]]]:
    """(size, its panels), the largest size first."""
    found = [(size, panels([result["sizes"][size].get("details", {}) for result in results], names)) for size in sizes]
    return [(size, shown) for size, shown in reversed(found) if shown]
