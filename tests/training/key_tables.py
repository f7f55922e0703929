"""The tables of keys in litevae/configs/README.md, made from the docstrings of the config's fields.

python -m tests.training.key_tables
"""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from typing import Any, cast

from litevae.config import PRESETS, LiteVAEConfig
from litevae.diffusion.config import DiffusionConfig, DiffusionTrainConfig
from litevae.distillation.config import DistillationConfig, DistillationTrainConfig
from litevae.runs.recipes import RECIPES_FOLDER
from litevae.training.config import RunConfig
from litevae_kernels.files import write_text

PAGE = RECIPES_FOLDER / "README.md"
HEAD = "| key | default | meaning |\n|---|---|---|\n"


def field_docstrings(section: type) -> dict[str, str]:
    """Field -> the string below it, in the source of a dataclass and its bases; fields without one are left out."""
    found: dict[str, str] = {}
    for cls in reversed([cls for cls in section.__mro__ if dataclasses.is_dataclass(cls)]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        for field, below in itertools.pairwise(cast(ast.ClassDef, definition).body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[cast(ast.Name, field.target).id] = ast.literal_eval(below.value)
    return found


def sections() -> Iterator[tuple[str, str, Any]]:
    """(heading, name, dataclass) of every table: the autoencoder's, then what the other kinds have in their place."""
    for section in dataclasses.fields(RunConfig):
        yield section.name, section.name, section.type
    for section in dataclasses.fields(DiffusionConfig):
        if section.name == "train":
            yield "train of a diffusion model", section.name, section.type
        elif section.name not in {own.name for own in dataclasses.fields(RunConfig)}:
            yield section.name, section.name, section.type
    for section in dataclasses.fields(DistillationConfig):
        if section.name in {"teacher", "loss", "train"}:
            where = "" if section.name == "teacher" else " of a distillation"
            yield section.name + where, section.name, section.type


def table(name: str, section: Any) -> str:
    """The rows of a section, in the order of its fields and in the words of yaml; of the other kinds' `train`
    their own alone."""
    documented = field_docstrings(LiteVAEConfig) if name == "model" else {}
    documented |= field_docstrings(section)
    if section in (DiffusionTrainConfig, DistillationTrainConfig):
        documented = {key: documented[key] for key in section.__annotations__}
    rows = []
    for field in dataclasses.fields(section):
        if field.name in documented:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            if name == "model" and default is None:  # what the size has; the page says so
                default = getattr(PRESETS["B"], field.name, None)
            meaning = " ".join(documented[field.name].split()).replace("|", r"\|")
            meaning = re.sub(r'"([\w+-]+)"', r"`\1`", meaning)
            rows.append(f"| `{name}.{field.name}` | {default} | {meaning} |\n")
    words = {"None": "null", "True": "true", "False": "false"}
    return HEAD + re.sub(r"\b(None|True|False)\b", lambda found: words[found[0]], "".join(rows))


def updated(page: str) -> str:
    """The page with the first table below each section's heading made anew."""
    for heading, name, section in sections():
        before = page.index(f"\n## {heading}\n")
        start = page.index(HEAD, before)
        rows = re.compile(r"(?:\|.*\n)*").match(page, start)
        assert rows is not None
        page = page[:start] + table(name, section) + page[rows.end() :]
    return page


if __name__ == "__main__":
    write_text(PAGE, updated(PAGE.read_text(encoding="utf-8")))
