"""The tables of keys in litevae/configs/README.md, made from the docstrings of the config's fields.

python -m tests.training.key_tables
"""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from typing import Any, cast

from litevae.config import PRESETS, LiteVAEConfig
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


def table(name: str, section: Any) -> str:
    """The rows of a section, in the order of its fields and in the words of yaml."""
    documented = field_docstrings(LiteVAEConfig) if name == "model" else {}
    documented |= field_docstrings(section)
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
    for section in dataclasses.fields(RunConfig):
        before = page.index(f"\n## {section.name}\n")
        start = page.index(HEAD, before)
        rows = re.compile(r"(?:\|.*\n)*").match(page, start)
        assert rows is not None
        page = page[:start] + table(section.name, section.type) + page[rows.end() :]
    return page


if __name__ == "__main__":
    write_text(PAGE, updated(PAGE.read_text(encoding="utf-8")))
