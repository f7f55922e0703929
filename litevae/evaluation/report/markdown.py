"""results.md: the numbers of an evaluation, and all that is needed to read them, as Markdown."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from litevae.evaluation.report.details import panels
from litevae.evaluation.report.latent_panels import BY_CHANNEL
from litevae.evaluation.report.results import check_results, sizes_of
from litevae.evaluation.report.tables import command_line, metrics_of, notices
from litevae.evaluation.report.wording import flatten, markdown_cell, metric_header, metric_name, metric_value, visible
from litevae_kernels.files import write_text


def write_markdown(path: str | os.PathLike[str], results: dict[str, Any]) -> None:
    """Write results.md: metrics and details by size, warnings, model, data, protocol, versions and command.

    Args:
        results: the content of results.json; a ValueError unless `check_results` takes it.
    """
    check_results(results)
    write_text(Path(path), "\n".join(_lines(results)) + "\n")


def summary(results: dict[str, Any]) -> str:
    """For a terminal: a line for each metric, a column for each size, and the warnings."""
    header, *rows = zip(*_metric_rows(results), strict=True)
    names, *columns = zip(header, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for name, *cells in zip(names, *columns, strict=True):
        values = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([name.ljust(max(map(len, names))), *values]))
    return "\n".join([*lines, *(f"warning   {visible(warning)}" for warning in notices([results])[0])])


def _metric_rows(results: dict[str, Any]) -> list[list[str]]:
    """A header, and a row for each size."""
    metrics, sizes = metrics_of([results]), results["sizes"]
    header = ["size", "images", *map(metric_header, metrics)]
    return [
        header,
        *(
            [
                size,
                str(sizes[size]["images"]),
                *(metric_value(name, sizes[size]["metrics"].get(name)) for name in metrics),
            ]
            for size in sizes_of([results])
        ),
    ]


def _lines(results: dict[str, Any]) -> Iterable[str]:
    yield f"# {markdown_cell(results['model']['label'])} on {markdown_cell(results['data']['name'])}"
    yield ""
    header, *rows = _metric_rows(results)
    yield from _table(header, rows, ":")
    yield f"\nMeasured {markdown_cell(results['date'])}. Arrows point to the better values."
    yield from _details(results)
    warnings, missing = notices([results])
    yield from _list("Warnings", map(markdown_cell, warnings))
    yield from _list(
        "Not measured", (f"{markdown_cell(metric_name(name))}: {markdown_cell(why)}" for name, why in missing)
    )
    for title in ("Protocol", "Model", "Data", "Versions"):
        pairs = flatten(results[title.lower()]).items()
        yield f"\n## {title}\n"
        yield from _table(["", ""], ([markdown_cell(key), markdown_cell(value)] for key, value in pairs))
    yield "\n## Command\n"
    yield from (f"    {line}" for line in visible(command_line(results)).splitlines())


def _details(results: dict[str, Any]) -> Iterable[str]:
    """Of every entry of `details` the table that says most, with a column for each size; report.html has them all."""
    sizes = sizes_of([results])
    for panel in panels([results["sizes"][size].get("details", {}) for size in sizes], sizes):
        table = next((table for table in panel.tables if not table.caption.startswith(BY_CHANNEL)), None)
        if table is None:
            continue
        yield f"\n## {markdown_cell(panel.title)}\n"
        rows = [
            [f"{row.head}, {group.lower()}" if group else row.head, *(cell.text for cell in row.cells)]
            for group, rows in table.groups
            for row in rows
        ]
        header = table.header or ["", ""]
        yield from _table([*map(markdown_cell, header)], ([*map(markdown_cell, row)] for row in rows))
        yield from (f"\n{markdown_cell(panel.note)}",) if panel.note else ()


def _table(header: list[str], rows: Iterable[list[str]], align: str = "") -> Iterable[str]:
    for row in (header, [f"---{align}"] * len(header), *rows):
        yield f"| {' | '.join(row)} |"


def _list(title: str, lines: Iterable[str]) -> Iterable[str]:
    for index, line in enumerate(lines):
        yield from () if index else (f"\n## {title}\n",)
        yield f"- {line}"
