"""Which row does a measured number fill? Only the one that it says it is of, by its id, and whose model it is."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litevae.paper_tables import sources
from litevae.paper_tables.commands import configs, trained
from litevae.paper_tables.contents import ROWS, tables
from litevae.paper_tables.contents import row as find_row
from litevae.paper_tables.sources import METRICS, RESULTS, Source
from litevae.paper_tables.structure import Row, Table
from litevae_kernels.checks import wrong_value

SAME_ENCODER = 1e-3
"""Encoders whose parameters differ by less are one: the 1x1 convolution counts, or does not."""


@dataclass(frozen=True)
class Measurement:
    """What stands below a printed row."""

    row: str
    model: str
    data: str
    images: int | None
    protocol: str
    cells: Sequence[str]
    """A value for each column of the table, "" where it was not measured."""


def read(words: Sequence[str]) -> tuple[list[Measurement], list[str]]:
    """What `--results` leads to, and what of it fills no row, with the reason.

    Args:
        words: ROW_ID=PATH: the results.json or run at PATH fills this row, or it is an error.
            PATH: every results.json and run below it fills the row whose id its label, or the run's name, is; and
            the benchmark's table3_encoders fills Table 3.

    A row is filled by a model with its class, latent channels and encoder parameters alone, at its resolution. Rows of
    one run (`same_as`) are filled together.

    Raises:
        ValueError: there is no such row, nothing at PATH, or with ROW_ID= another model than the row's.
    """
    found: list[Measurement] = []
    unused: list[str] = []
    for word in words:
        identifier, equals, place = word.partition("=")
        if equals and "/" not in identifier:
            table, row = find_row(identifier)
            source = _read(_the_one(Path(place)))
            found += _fill(table, row, source)
            found += _fill_others(identifier, source)
            continue
        for path in sources.files_below(Path(word), (RESULTS, METRICS, sources.TABLE_3)):
            if path.name not in (RESULTS, METRICS):
                found += _fill_table_3(path)
                continue
            try:
                source = _read(path)
                if source.label not in ROWS:
                    raise ValueError(f"{source.path} fills no row: its label {source.label!r} is no row's id")
                found += [*_fill(*find_row(source.label), source), *_fill_others(source.label, source)]
            except ValueError as error:
                unused.append(str(error))
    return found, unused


def _the_one(path: Path) -> Path:
    """The evaluation in a folder or, where it has none, the run."""
    if path.expanduser().is_file():
        return path.expanduser()
    found = sources.files_below(path, (RESULTS, METRICS))
    evaluations = [file for file in found if file.name == RESULTS] or found
    if len(evaluations) > 1:
        names = ", ".join(str(file) for file in evaluations[:4])
        raise wrong_value("--results ROW_ID=PATH", f"lead to one {RESULTS}", names, "name one of them")
    return evaluations[0]


def _read(path: Path) -> Source:
    return sources.from_run(path) if path.name == METRICS else sources.from_results(path)


def _fill_others(identifier: str, source: Source) -> Iterator[Measurement]:
    """The rows that one run is for, beside the one of that run."""
    for table, row in ROWS.values():
        if row.same_as == identifier:
            yield from _fill(table, row, source)


def _fill(table: Table, row: Row, source: Source) -> list[Measurement]:
    """The row's measurement; a ValueError says why this source is not of it."""
    side = table.setting_of(row).side
    _check_model(table, row, source)
    if side is None or side not in source.sizes:
        sizes = ", ".join(f"{size}x{size}" for size in source.sizes) or "images at their own sizes"
        raise wrong_value(f"{source.path} for row {row.id}", f"be measured at {side}x{side}", sizes, "add --sizes")
    images, values = source.sizes[side]
    return [Measurement(row.id, _name(source), source.data, images, source.protocol, _cells(table, values))]


def _check_model(table: Table, row: Row, source: Source) -> None:
    argument, found = f"{source.path} for row {row.id}", source.model
    if row.missing is not None:
        raise wrong_value(argument, f"be of a model that can be made here ({row.missing})", source.label)
    channels = table.setting_of(row).latent_channels
    if channels is None:
        raise wrong_value(argument, "be of a row of autoencoders", row.id, "`python -m litevae.paper` lists them")
    if found.get("latent_channels") != channels:
        raise wrong_value(argument, f"have {channels} latent channels", found.get("latent_channels"))
    identifier = row.model_of or trained(row).id
    if not find_row(identifier)[1].train:
        return
    wanted = expected_model(identifier)
    if found.get("class") != wanted["class"]:
        raise wrong_value(argument, f"be of a {wanted['class']}", found.get("class"))
    count, right = found.get("encoder_parameters"), wanted["encoder_parameters"]
    if count is None or abs(count - right) > SAME_ENCODER * right:
        raise wrong_value(argument, f"be of an encoder of {right:,} parameters", count)


@functools.cache
def expected_model(identifier: str) -> dict[str, Any]:
    """The model of a row that is trained, as results.json describes one."""
    return sources.description(configs(find_row(identifier)[1])[-1].model)


def _name(source: Source) -> str:
    decoder = source.model.get("decoder_parameters")
    return f"{source.path}" + (f", decoder {decoder / 1e6:.2f} M" if decoder else "")


def _cells(table: Table, values: Any) -> list[str]:
    found = [None if column.key is None else values.get(column.key) for column in table.columns]
    return [
        value if isinstance(value, str) else format(value, column.spec) if sources.is_number(value) else ""
        for value, column in zip(found, table.columns, strict=True)
    ]


def _fill_table_3(path: Path) -> Iterator[Measurement]:
    """Every precision of the encoders that the paper has."""
    document = sources.read_json(path)
    (table,) = tables(3)
    rows = {row.label: row for row in table.rows}
    machine = document["conditions"].get("gpu") or document["conditions"]["machine"]
    for name, precision, values in sources.table_3_rows(path):
        if name in rows:
            batch = values.get("batch", document["settings"]["batch"])
            about = f"{document['settings']['resolution']}, {precision}, batch {batch}; {machine}"
            yield Measurement(rows[name].id, str(path), "random", None, about, _cells(table, values))
