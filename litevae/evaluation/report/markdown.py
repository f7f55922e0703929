"""results.md: the numbers of an evaluation, and all that is needed to read them, as Markdown."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from litevae.evaluation.report.results import check_results, sizes_of
from litevae.evaluation.report.tables import command_line, metrics_of, notices
from litevae.evaluation.report.wording import flatten, markdown_cell, metric_header, metric_name, metric_value, visible
from litevae_kernels.files import write_text


def write_markdown(path: str | os.PathLike[str], results: dict[str, Any]) -> None:
    """Write results.md: model, data, metrics by size, warnings, protocol, versions and command.

    Args:
        results: the content of results.json; a ValueError unless `check_results` takes it.
    """
    check_results(results)
    write_text(Path(path), "\n".join(_lines(results)) + "\n")


def _lines(results: dict[str, Any]) -> Iterable[str]:
    metrics, sizes = metrics_of([results]), results["sizes"]
    yield f"# {markdown_cell(results['model']['label'])} on {markdown_cell(results['data']['name'])}"
    yield ""
    yield from _table(
        ["size", "images", *map(metric_header, metrics)],
        (
            [
                size,
                str(sizes[size]["images"]),
                *(metric_value(name, sizes[size]["metrics"].get(name)) for name in metrics),
            ]
            for size in sizes_of([results])
        ),
        ":",
    )
    yield f"\nMeasured {markdown_cell(results['date'])}. Arrows point to the better values."
    warnings, missing = notices([results])
    yield from _list("Warnings", map(markdown_cell, warnings))
    yield from _list(
        "Not measured", (f"{markdown_cell(metric_name(name))}: {markdown_cell(why)}" for name, why in missing)
    )
    for title in ("Protocol", "Model", "Data", "Versions"):
        rows = flatten(results[title.lower()]).items()
        yield f"\n## {title}\n"
        yield from _table(["", ""], ([markdown_cell(key), markdown_cell(value)] for key, value in rows))
    yield "\n## Command\n"
    yield from (f"    {line}" for line in visible(command_line(results)).splitlines())


def _table(header: list[str], rows: Iterable[list[str]], align: str = "") -> Iterable[str]:
    for row in (header, [f"---{align}"] * len(header), *rows):
        yield f"| {' | '.join(row)} |"


def _list(title: str, lines: Iterable[str]) -> Iterable[str]:
    for index, line in enumerate(lines):
        yield from () if index else (f"\n## {title}\n",)
        yield f"- {line}"
