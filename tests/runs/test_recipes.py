"""Do recipe, base and overrides become the config that they say?"""

from pathlib import Path

import pytest

from litevae.runs import recipes as recipes_module
from litevae.runs.config import ConfigError
from litevae.runs.recipes import load_config, recipes
from litevae.training.config import RunConfig


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads_and_says_what_it_is(name: str) -> None:
    config = load_config(RunConfig, name, ["data.path=~/images"] if name.startswith(("ffhq", "imagenet")) else [])
    assert config.run.dir == f"runs/{name}"
    assert len(recipes()[name]) > 20


def test_values_of_the_command_line_win(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("model:\n  size: M\ntrain:\n  steps: 7\n  learning_rate: 1e-3\n  mixed_precision: bf16\n")
    config = load_config(
        RunConfig, str(path), ["train.steps=9", "model.block_out_channels=[8,8,16,16]", "data.path=~/x"]
    )
    assert (config.train.steps, config.train.learning_rate, config.train.mixed_precision) == (9, 1e-3, "bf16")
    assert (config.model.size, config.model.block_out_channels) == ("M", [8, 8, 16, 16])
    assert config.data.path == "~/x"
    assert config.run.dir == "runs/my"


def test_a_recipe_starts_from_its_base(tmp_path: Path) -> None:
    """The base, then the file, then the command line."""
    path = tmp_path / "my.yaml"
    path.write_text("base: imagenet128\nloss:\n  gaussian_weight: 0.25\ntrain:\n  steps: 7\n  batch_size: 8\n")
    config = load_config(RunConfig, str(path), ["data.path=x", "train.steps=9"])
    base = load_config(RunConfig, "imagenet128", ["data.path=x"])
    assert (config.train.steps, config.train.batch_size, config.loss.gaussian_weight) == (9, 8, 0.25)
    assert config.loss.adversarial_start == base.loss.adversarial_start == 10_000
    assert (config.data, config.run.dir) == (base.data, "runs/my")


@pytest.mark.parametrize("name", recipes())
def test_any_recipe_can_be_a_base(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the base's own base, and whatever the current folder holds."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("train:\n  steps: 3\n")
    Path("my.yaml").write_text(f"base: {name}\nrun:\n  dir: runs/{name}\n")
    data = ["data.path=x"] if name.startswith(("ffhq", "imagenet")) else []
    config = load_config(RunConfig, "my.yaml", data)
    Path(name).unlink()
    assert config == load_config(RunConfig, name, data)


def test_bases_in_a_circle_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes_module, "RECIPES_FOLDER", tmp_path)
    for name, base in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.yaml").write_text(f"# {name}\nbase: {base}\n")
    with pytest.raises(ConfigError, match=r"two.yaml: base must not lead back to its own file, got 'one'"):
        load_config(RunConfig, "one")


def test_unknown_base_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("base: imagenet127\n")
    with pytest.raises(ConfigError, match=r"my.yaml: base must be one of comparison, .*, got 'imagenet127'"):
        load_config(RunConfig, str(path))
