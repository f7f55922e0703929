"""The tables of the page: metrics, models, data, protocol, versions."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from litevae.evaluation.report.results import is_number, labels, sizes_of
from litevae.evaluation.report.wording import flatten, higher_is_better, metric_header, metric_value, number


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False
    """The best of what is compared."""


@dataclass(frozen=True)
class Row:
    head: str
    cells: list[Cell]
    series: int | None = None
    """Of which model it is, where rows are models."""


@dataclass(frozen=True)
class Table:
    """A table with one head in every row, the rows in groups."""

    caption: str
    header: list[str]
    groups: list[tuple[str, list[Row]]] = field(default_factory=list)
    """(the group's own head or "", its rows)."""
    numeric: bool = True
    """Its cells are numbers, to be aligned at the right."""


def metrics_of(results: Sequence[dict[str, Any]]) -> list[str]:
    """Every metric that a size of a model has, in the order they first come in."""
    return list(
        dict.fromkeys(
            metric for result in results for size in sizes_of([result]) for metric in result["sizes"][size]["metrics"]
        )
    )


def compared(metric: str, values: Sequence[float | None]) -> list[Cell]:
    """The values of one metric, the best of them marked, and all that read the same as the best."""
    texts = [metric_value(metric, value) for value in values]
    finite = [value for value in values if is_number(value) and value is not None]
    if len(finite) < 2:
        return [Cell(text) for text in texts]
    best = metric_value(metric, max(finite) if higher_is_better(metric) else min(finite))
    return [Cell(text, text == best) for text in texts]


def metrics_table(results: Sequence[dict[str, Any]]) -> Table:
    """Rows are models, or sizes where there is one model; columns are metrics; of several models the best is marked."""
    names, metrics, sizes = labels(results), metrics_of(results), sizes_of(results)
    blocks: dict[str, list[Row]] = {}
    for size in sizes:
        measured = [result["sizes"].get(size, {"metrics": {}}) for result in results]
        columns = [compared(metric, [one["metrics"].get(metric) for one in measured]) for metric in metrics]
        blocks[size] = [
            Row(name, [column[index] for column in columns], index if len(names) > 1 else None)
            for index, name in enumerate(names)
        ]
    header = [metric_header(metric) for metric in metrics]
    if len(names) == 1:
        rows = [Row(_side(size), block[0].cells) for size, block in blocks.items()]
        return Table("Metrics", ["Size", *header], [("", rows)])
    groups = [(_side(size) if len(sizes) > 1 else "", block) for size, block in blocks.items()]
    return Table("Metrics", ["Model", *header], groups)


def _side(size: str) -> str:
    return f"{size} x {size}"


def keys_table(caption: str, values: Sequence[Mapping[str, str]], names: Sequence[str]) -> Table | None:
    """A row for every key, a column for every model; None without keys."""
    keys = list(dict.fromkeys(key for value in values for key in value))
    rows = [Row(key, [Cell(value.get(key, "-")) for value in values]) for key in keys]
    header = ["", *names] if len(names) > 1 else []
    return Table(caption, header, [("", rows)], numeric=False) if rows else None


def made_tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """How the numbers came about: protocol and data, alike for all, then models and versions side by side."""
    names, first = labels(results), results[0]
    data = {key: value for key, value in first["data"].items() if key != "skipped"}
    skipped = ", ".join(f"{reason}: {number(count)}" for reason, count in (first["data"].get("skipped") or {}).items())
    tables = [
        keys_table("Protocol", [first["protocol"]], [""]),
        keys_table("Data", [flatten({**data, "skipped": skipped or "none"})], [""]),
        keys_table("Model", [flatten(result["model"]) for result in results], names),
        keys_table("Versions", [flatten({**result["versions"], **_time(result)}) for result in results], names),
    ]
    return [table for table in tables if table is not None]


def _time(result: dict[str, Any]) -> dict[str, Any]:
    """When it was measured, and how long each size took."""
    seconds = {f"seconds at {size}": result["sizes"][size].get("seconds") for size in sizes_of([result])}
    return {"date": result["date"], **{key: value for key, value in seconds.items() if value is not None}}


def command_line(result: dict[str, Any]) -> str:
    """The command as a shell takes it."""
    return shlex.join(map(str, result["command"]))


def notices(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[tuple[str, str]]]:
    """(every warning, with the sizes and models it is of; every metric that is missing, with what it needs)."""
    names = labels(results)
    places: dict[str, dict[str, list[str]]] = {}  # warning -> model -> sizes
    missing: dict[tuple[str, str], None] = {}
    for name, result in zip(names, results, strict=True):
        for size in sizes_of([result]):
            for warning in result["sizes"][size].get("warnings", []):
                places.setdefault(str(warning), {}).setdefault(name, []).append(size)
        missing |= dict.fromkeys(result["unavailable"].items())
    return [_placed(warning, where, names) for warning, where in places.items()], list(missing)


def _placed(warning: str, places: Mapping[str, Sequence[str]], names: Sequence[str]) -> str:
    """A warning with where it holds: sizes for each model, or once where they are the same for all."""
    sizes = {", ".join(at) for at in places.values()}
    if len(sizes) == 1 and len(places) == len(names):
        return f"{warning} (at {sizes.pop()})"
    where = [f"{name} at {', '.join(at)}" for name, at in places.items()]
    return f"{warning} ({'; '.join(where)})"
