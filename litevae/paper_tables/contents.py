"""Which tables and figures does the paper have, and which row is called so?"""

from litevae.paper_tables import appendix_tables, section5_tables, section6_tables
from litevae.paper_tables.figures import FIGURES
from litevae.paper_tables.structure import Figure, Row, Table
from litevae.runs.recipes import nearest
from litevae_kernels.checks import wrong_value

TABLES: tuple[Table, ...] = (*section5_tables.TABLES, *section6_tables.TABLES, *appendix_tables.TABLES)
"""In the order of the paper; the two parts of Table 2 are two."""
ROWS: dict[str, tuple[Table, Row]] = {row.id: (table, row) for table in TABLES for row in table.rows}


def tables(number: int) -> list[Table]:
    """The table of this number, with all its parts.

    Raises:
        ValueError: there is none.
    """
    found = [table for table in TABLES if table.number == number]
    if not found:
        raise wrong_value("table", f"be from 1 to {TABLES[-1].number}", number)
    return found


def figure(number: int) -> Figure:
    """The figure of this number.

    Raises:
        ValueError: there is none.
    """
    if number not in FIGURES:
        raise wrong_value("figure", f"be from 1 to {max(FIGURES)}", number)
    return FIGURES[number]


def row(identifier: str) -> tuple[Table, Row]:
    """The row of this id, and its table.

    Raises:
        ValueError: there is none; the nearest id is named.
    """
    if identifier not in ROWS:
        near = nearest(identifier, ROWS)
        way_out = f"did you mean {near}?" if near else "`python -m litevae.paper` lists them"
        raise wrong_value("a row", "be called by its id", identifier, way_out)
    return ROWS[identifier]
