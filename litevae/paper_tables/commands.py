"""The commands that fill a row: training, into a run that is called by the row's id, then its evaluation."""

from collections.abc import Iterator

from litevae.paper_tables.contents import row as find_row
from litevae.paper_tables.structure import Row, Setting
from litevae.runs.recipes import load_config
from litevae.training.config import RunConfig

PLACES = {"ImageNet": "~/imagenet", "FFHQ": "~/ffhq"}
"""Data set -> a folder with train/ and val/, as commands name it."""


def trained(row: Row) -> Row:
    """The row whose runs are this one's too: itself, or that of `same_as`."""
    return row if row.same_as is None else find_row(row.same_as)[1]


def training(row: Row) -> Iterator[tuple[str, list[str]]]:
    """(recipe, overrides) of each run of a row, without data.path; nothing for a row that is not trained."""
    row = trained(row)
    start: list[str] = []
    for number, words in enumerate(row.train, 1):
        recipe, *overrides = words.split()
        folder = f"runs/{row.id}" if number == len(row.train) else f"runs/{row.id}-stage{number}"
        yield recipe, [*overrides, *start, f"run.dir={folder}"]
        start = [f"train.start_from={folder}"]


def configs(row: Row) -> list[RunConfig]:
    """The config of each run of a row.

    Raises:
        ConfigError: a recipe or override that does not exist.
    """
    return [load_config(RunConfig, recipe, [*words, "data.path=unread"]) for recipe, words in training(row)]


def commands(row: Row, setting: Setting) -> list[str]:
    """Everything to type for a row, in order; empty where the row has a reason instead."""
    if row.command is not None:
        return [row.command]
    runs = list(training(row))
    if not runs:
        return []
    place = PLACES[find_row(trained(row).id)[0].setting_of(trained(row)).dataset or ""]
    lines = [f"python -m litevae.train {' '.join([recipe, f'data.path={place}/train', *w])}" for recipe, w in runs]
    return [*lines, f"python -m litevae.evaluate runs/{trained(row).id} {place}/val --sizes {setting.side}"]
