"""Do the pages have every printed value, and measured ones below their own row, with whose they are?"""

import pytest

from litevae.paper_tables.contents import ROWS, TABLES, tables
from litevae.paper_tables.figures import FIGURES
from litevae.paper_tables.markdown import describe, figure_page, grid, listing, page
from litevae.paper_tables.measurements import Measurement
from litevae.paper_tables.structure import Setting, Table

FOUND = Measurement("4-smc", "runs/4-smc", "photographs", 2, "ldm, mode", ["", "0.322", "21.99", "0.654"])


def test_the_listing_names_everything() -> None:
    text = listing()
    assert "# The paper's 24 tables and 9 figures" in text
    can_be_run = sum(row.missing is None for _, row in ROWS.values())
    assert f"{can_be_run} of 80 rows can be run here" in text
    for name, (_, row) in ROWS.items():
        assert f"`{name}`{' (no command)' if row.missing else ''}" in text
    for number in FIGURES:
        assert f"**Figure {number}**" in text
    assert "measured" not in text
    assert "2 rows, 2 can be run here, 1 measured:\n  `4-group-norm`, `4-smc`" in listing([FOUND])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_page_has_every_value_and_command(table: Table) -> None:
    text = page(table)
    for row in table.rows:
        assert f"| `{row.id}` | {row.label} | {row.printed} |" in text
        assert f"# {row.id}" in text
        assert row.missing is None or f"no command: {row.missing}" in text
        assert row.note in text
    assert all(f"- {note}" in text for note in table.notes)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_measured_values_stand_below_their_own_row() -> None:
    (table,) = tables(4)
    header, _, group_norm, smc, measured = map(cells, grid(table, [FOUND]))
    assert header == ["row", "", "model", "data", "images", "protocol", "rFID", "LPIPS", "PSNR, dB", "SSIM"]
    assert smc == ["`4-smc`", "SMC", "the paper", "ImageNet", "", "the paper's", "0.97", "0.07", "29.32", "0.87"]
    assert measured == [
        "", "measured", "runs/4-smc", "photographs", "2", "ldm, mode", "", "0.322", "21.99", "0.654"
    ]  # fmt: skip
    assert group_norm[0] == "`4-group-norm`"
    assert len({len(row) for row in (header, group_norm, smc, measured)}) == 1


def test_measurements_of_other_tables_are_not_shown() -> None:
    (table,) = tables(5)
    assert list(grid(table, [FOUND])) == list(grid(table))


def test_names_cannot_break_a_row() -> None:
    (table,) = tables(4)
    *_, measured = grid(table, [Measurement("4-smc", "a|b", "c\nd", None, "e", ["", "", "", ""])])
    assert r"| a\|b | c d | | e |" in measured.replace("|  |", "| |")


def test_rows_in_turn_share_a_command() -> None:
    (table,) = tables(3)
    text = page(table)
    assert text.count("pytest benchmarks") == 1
    assert text.count("# as above") == 4


def test_settings_say_what_is_known() -> None:
    assert describe(Setting("ImageNet", 128, 12, 200_000)) == "ImageNet, 128x128, n_z 12, 200,000 steps"
    assert describe(Setting(side=256)) == "256x256"
    assert describe(Setting()) == "see the rows and notes"


@pytest.mark.parametrize("number", FIGURES)
def test_a_figure_says_what_is_printed_and_how_it_is_drawn(number: int) -> None:
    figure = FIGURES[number]
    text = figure_page(figure)
    assert figure.printed in text
    assert (f"`{figure.command}`" if figure.command else f"No command: {figure.missing}.") in text
    assert all(note in text for note in figure.notes)
