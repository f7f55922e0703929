"""The paper's tables and figures as Markdown, with measured values below the printed ones."""

from collections.abc import Iterator, Sequence

from litevae.paper_tables.commands import commands
from litevae.paper_tables.contents import TABLES
from litevae.paper_tables.figures import FIGURES
from litevae.paper_tables.measurements import Measurement
from litevae.paper_tables.structure import BETTER, QUALITY, Figure, Setting, Table


def listing(measured: Sequence[Measurement] = ()) -> str:
    """Every table with its rows' ids, and every figure."""
    rows = [row for table in TABLES for row in table.rows]
    numbers = {table.number for table in TABLES}
    lines = [
        f"# The paper's {len(numbers)} tables and {len(FIGURES)} figures",
        "",
        f"{sum(row.can_be_run for row in rows)} of {len(rows)} rows can be run here. `python -m litevae.paper table 2` "
        "and `figure 5` show one in full.",
        "",
    ]
    filled = {measurement.row for measurement in measured}
    for table in TABLES:
        count, runnable = len(table.rows), sum(row.can_be_run for row in table.rows)
        marks = [f"`{row.id}`{'' if row.can_be_run else ' (no command)'}" for row in table.rows]
        here = sum(row.id in filled for row in table.rows)
        rest = f", {here} measured" if measured else ""
        lines += [f"- **Table {table.name}**: {table.title}. {count} rows, {runnable} can be run here{rest}:"]
        lines += [f"  {', '.join(marks)}"]
    for figure in FIGURES.values():
        how = f"no command: {figure.missing}" if figure.command is None else f"`{figure.command}`"
        lines += [f"- **Figure {figure.number}**: {figure.title}: {how}"]
    return "\n".join(lines) + "\n"


def page(table: Table, measured: Sequence[Measurement] = ()) -> str:
    """One table: its setting, printed rows with measured ones below, the commands for each row, and what is odd."""
    lines = [f"# Table {table.name}: {table.title}", "", f"Setting: {describe(table.setting)}.", ""]
    lines += [*grid(table, measured), ""]
    if any(column in table.columns for column in QUALITY):
        lines += [BETTER, ""]
    lines += ["```bash", *_script(table), "```", ""]
    notes = [*table.notes, *(f"`{row.id}`: {row.note}" for row in table.rows if row.note)]
    if notes:
        lines += ["## Notes", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def grid(table: Table, measured: Sequence[Measurement] = ()) -> Iterator[str]:
    """The rows of a table; with measurements also whose, on which data and how, so that none passes for another."""
    own = [measurement for measurement in measured if measurement.row in {row.id for row in table.rows}]
    about = ["model", "data", "images", "protocol"] if own else []
    header = ["row", "", *about, *(column.heading for column in table.columns)]
    yield f"| {' | '.join(header)} |"
    yield f"|---|---|{'---|' * len(about)}{'--:|' * len(table.columns)}"
    for row in table.rows:
        data = table.setting_of(row).dataset or "not stated"
        printed = ["the paper", data, "", "the paper's"] if own else []
        yield f"| `{row.id}` | {' | '.join([row.label, *printed, *row.values])} |"
        for found in own:
            if found.row == row.id:
                images = "" if found.images is None else f"{found.images:,}"
                where = [_escape(text) for text in (found.model, found.data, images, found.protocol)]
                yield f"| | {' | '.join(['measured', *where, *found.cells])} |"


def describe(setting: Setting) -> str:
    """ "ImageNet, 128x128, n_z 12, 200,000 steps", of what is known."""
    parts = [
        setting.dataset,
        setting.side and f"{setting.side}x{setting.side}",
        setting.latent_channels and f"n_z {setting.latent_channels}",
        setting.steps and f"{setting.steps:,} steps",
    ]
    return ", ".join(str(part) for part in parts if part) or "see the rows and notes"


def _script(table: Table) -> Iterator[str]:
    """The commands of every row, or why it has none, as lines of a shell script; rows in turn may share theirs."""
    before: list[str] = []
    for row in table.rows:
        own = "" if row.setting is None else f" ({describe(row.setting)})"
        if row.missing is not None:
            yield f"# {row.id}{own}: no command: {row.missing}"
        elif row.same_as is not None:
            yield f"# {row.id}{own}: the run of {row.same_as}"
        else:
            yield f"# {row.id}{own}"
        lines = commands(row, table.setting_of(row))
        if lines == before and before:
            yield "# as above"
        else:
            yield from lines
        before = lines


def figure_page(figure: Figure) -> str:
    """One figure: what it shows, what can be read off it, and how the like of it is drawn."""
    how = f"No command: {figure.missing}." if figure.command is None else f"`{figure.command}`"
    lines = [f"# Figure {figure.number}: {figure.title}", "", f"Printed: {figure.printed}.", "", how, ""]
    return "\n".join([*lines, *(f"- {note}" for note in figure.notes)]).rstrip() + "\n"


def _escape(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
