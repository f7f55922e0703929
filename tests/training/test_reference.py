"""Does the user's page show every key, as the fields' docstrings have it?"""

import dataclasses
from typing import Any

import pytest

from litevae.config import LiteVAEConfig
from litevae.diffusion.config import DiffusionTrainConfig
from litevae.distillation.config import DistillationTrainConfig
from litevae.runs.recipes import recipes
from litevae.training.config import RunConfig

from .key_tables import PAGE, field_docstrings, sections, table, updated


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page) == page, "run python -m tests.training.key_tables"
    for name in recipes():
        assert f"`{name}`" in page


@pytest.mark.parametrize(("heading", "name", "section"), list(sections()))
def test_every_key_has_a_row_with_its_default(heading: str, name: str, section: Any) -> None:
    rows = table(name, section).splitlines()[2:]
    keys = [row.split("`")[1] for row in rows]
    arguments = {field.name for field in dataclasses.fields(LiteVAEConfig)} - set(field_docstrings(LiteVAEConfig))
    fields = [field.name for field in dataclasses.fields(section)]
    if section in (DiffusionTrainConfig, DistillationTrainConfig):
        fields = [field for field in fields if field in section.__annotations__]
    expected = [field for field in fields if name != "model" or field not in arguments]
    assert keys == [f"{name}.{field}" for field in expected]
    assert all(row.count(" | ") == 2 and len(row.split(" | ")[2]) > 6 for row in rows)


def test_rows_are_in_the_words_of_yaml() -> None:
    rows = table("train", RunConfig().train.__class__)
    assert "| `train.evaluate_lpips` | null | Measure LPIPS of the held-out images; null: if the loss has it. |" in rows
    assert "| `train.tensorboard` | true |" in rows
    assert "| `train.betas` | [0.5, 0.9] |" in rows
