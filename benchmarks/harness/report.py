"""From measured rows to a table: JSON and Markdown, with what the numbers depend on."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from litevae_kernels.files import write_text
from litevae_kernels.machine import commit, processor, version

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("torch", "triton", "litevae", "diffusers", "ptwt")


@dataclass(frozen=True)
class Column:
    """`key` of a row's value, `heading` over it, `spec` as in format() for numbers."""

    key: str
    heading: str
    spec: str = ".2f"


@dataclass(frozen=True)
class Table:
    """What a table shows. `name` is its file's, `settings` are the conditions of all rows, `order` that of the rows."""

    name: str
    title: str
    settings: Mapping[str, Any]
    columns: Sequence[Column]
    order: Sequence[str]
    notes: Sequence[str] = ()


@dataclass
class Measured:
    """The rows of one table that a run has measured, by label, and why it has no others."""

    table: Table
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    """Its own, beside those of the run."""


class Results:
    """All that a run has measured."""

    def __init__(self) -> None:
        self.tables: dict[str, Measured] = {}

    def add(self, table: Table, label: str, row: Mapping[str, Any]) -> None:
        self._of(table).rows[label] = {table.columns[0].key: label, **row}

    def skip(self, table: Table, label: str, reason: str) -> None:
        self._of(table).skipped[label] = reason

    def _of(self, table: Table) -> Measured:
        return self.tables.setdefault(table.name, Measured(table))


def document(measured: Measured, conditions: Mapping[str, str]) -> dict[str, Any]:
    """A table as plain data, complete: `markdown` needs nothing else. `conditions` as at the start of the run."""
    table = measured.table
    labels = dict.fromkeys((*table.order, *measured.skipped))  # what is no row, a rival, comes last
    return {
        "table": table.name,
        "title": table.title,
        "settings": dict(table.settings),
        "conditions": {**conditions, **measured.conditions},
        "columns": [{"key": column.key, "heading": column.heading, "spec": column.spec} for column in table.columns],
        "order": list(table.order),
        "rows": [measured.rows[label] for label in table.order if label in measured.rows],
        "skipped": {label: measured.skipped[label] for label in labels if label in measured.skipped},
        "notes": list(table.notes),
    }


def markdown(document: Mapping[str, Any]) -> str:
    """A document as Markdown whose columns also line up in a terminal. Of many unmeasured rows it names the first."""
    settings = {**document["settings"], **document["conditions"]}
    lines = [f"# {document['title']}", "", *_grid(document["columns"], document["rows"]), ""]
    lines += [f"- {name}: {f'`{value}`' if name == 'command' else value}" for name, value in settings.items()]
    reasons = dict.fromkeys(document["skipped"].values())
    for reason in reasons:
        labels = [label for label, label_reason in document["skipped"].items() if label_reason == reason]
        rest = f"; and {len(labels) - 3} more" if len(labels) > 4 else ""
        lines.append(f"- not measured ({reason}): {'; '.join(labels[:3] if rest else labels)}{rest}")
    if document["notes"]:
        lines += ["", *(f"- {note}" for note in document["notes"])]
    return "\n".join(lines) + "\n"


def _grid(columns: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [[column["heading"] for column in columns]]
    cells += [[cell(row.get(column["key"]), column["spec"]) for column in columns] for row in rows]
    widths = [max(3, *(len(line[index]) for line in cells)) for index in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in [cells[0], rule, *cells[1:]]
    ]
    return [f"| {' | '.join(line)} |" for line in padded]


def cell(value: Any, spec: str) -> str:
    """A value of a table: "-" for none."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, spec)


def write(document: Mapping[str, Any], folder: Path) -> str:
    """Write <table>-<device>.json and .md and say so, or say why an older table was left as it is.

    A run that measured less than a stored table has (-k, a missing package, no time for a rival) does not replace it:
    fewer rows, or fewer columns of one. Rows and columns that the table no longer knows do not count.
    """
    path = folder / f"{document['table']}-{document['conditions']['device']}.json"
    if lost := _lost(json.loads(path.read_text(encoding="utf-8")), document) if path.exists() else []:
        return f"{path} was kept: this run has no {', no '.join(lost)} (--results FOLDER stores it elsewhere)"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, indent=2) + "\n")
    write_text(path.with_suffix(".md"), markdown(document))
    return f"wrote {path} and {path.with_suffix('.md').name}"


def _lost(stored: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    """What `stored` has and `document` should have but lacks."""
    first, *columns = document["columns"]
    rows, lost = {row[first["key"]]: row for row in document["rows"]}, []
    for old in stored["rows"]:
        label = old[first["key"]]
        if label in rows:
            keys = [column["key"] for column in columns]
            gone = [key for key in keys if old.get(key) is not None and rows[label].get(key) is None]
            lost += [f"{key} for {label}" for key in gone]
        elif label in document["order"]:
            lost.append(f"row for {label}")
    return lost


def conditions(command: str) -> dict[str, str]:
    """The command, the machine, the versions, the commit and the date: what every number depends on."""
    cuda = torch.cuda.is_available()
    machine = f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return {
        "command": command,
        "device": re.sub("[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()) if cuda else "cpu",
        "machine": f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda}); {machine}" if cuda else machine,
        "versions": ", ".join([f"python {sys.version.split()[0]}", *(f"{name} {version(name)}" for name in PACKAGES)]),
        "commit": commit() or os.environ.get("LITEVAE_COMMIT", "unknown (no git repository)"),
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
    }
