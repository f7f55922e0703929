"""Does the user's page have the commands of litevae/paper_tables?"""

from litevae.paper_tables.commands import trained
from litevae.paper_tables.contents import ROWS

from .command_table import PAGE, table, updated


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page) == page, "run python -m tests.paper_tables.command_table"


def test_every_row_that_is_trained_is_on_it() -> None:
    named = [line.split("`")[1] for line in table().splitlines()[2:]]
    assert named == [name for name, (_, row) in ROWS.items() if trained(row).train]


def test_a_stale_page_is_found() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page.replace("| `imagenet128 model=sd-vae-small` |", "| `imagenet128` |")) == page
