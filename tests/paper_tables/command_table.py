"""The table of commands in litevae/configs/README.md, made from the paper's tables as litevae/paper_tables has them.

python -m tests.paper_tables.command_table
"""

import re
from collections.abc import Iterator

from litevae.paper_tables.commands import training
from litevae.paper_tables.contents import TABLES
from litevae.runs.recipes import RECIPES_FOLDER
from litevae_kernels.files import write_text

PAGE = RECIPES_FOLDER / "README.md"
HEAD = "| row | | recipe and overrides |\n|---|---|---|\n"


def table() -> str:
    """A line for each row of the paper that a training here fills."""
    return HEAD + "".join(_lines())


def _lines() -> Iterator[str]:
    for part in TABLES:
        for row in part.rows:
            if row.same_as is not None:
                command = f"as `{row.same_as}`"
            elif row.train:
                # The name of the last run follows from the row's id, as the page says.
                runs = [
                    " ".join((recipe, *words)).removesuffix(f" run.dir=runs/{row.id}")
                    for recipe, words in training(row)
                ]
                command = ", then ".join(f"`{run}`" for run in runs)
            else:
                continue
            yield f"| `{row.id}` | {row.label} | {command} |\n"


def updated(page: str) -> str:
    """The page with this table made anew."""
    start = page.index(HEAD)
    rows = re.compile(r"(?:\|.*\n)*").match(page, start)
    assert rows is not None
    return page[:start] + table() + page[rows.end() :]


if __name__ == "__main__":
    write_text(PAGE, updated(PAGE.read_text(encoding="utf-8")))
