"""Do recipe, base and overrides become the config that they say?"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from litevae import train
from litevae.diffusion.config import DiffusionConfig
from litevae.distillation.config import DistillationConfig
from litevae.runs import recipes as recipes_module
from litevae.runs.config import ConfigError
from litevae.runs.recipes import build_config, find_recipe, kind_of, load_config, recipes, to_yaml
from litevae.training.config import RunConfig

SCHEMAS: dict[str, Any] = {
    "autoencoder": RunConfig,
    "diffusion": DiffusionConfig,
    "distillation": DistillationConfig,
}
NEEDED = {"autoencoder": [], "diffusion": ["autoencoder=x"], "distillation": ["teacher=x"]}


def load(name: str, recipe: str) -> Any:
    """The config of a file whose recipe, of this name, needs data or an autoencoder."""
    needed = ["data.path=~/images"] if name.startswith(("ffhq", "imagenet")) else []
    kind = kind_of(find_recipe(recipe))
    return load_config(SCHEMAS[kind], recipe, [*needed, *NEEDED[kind]])


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads_and_says_what_it_is(name: str) -> None:
    config = load(name, name)
    kinds = {"ldm": "diffusion", "dit": "diffusion", "distill": "distillation"}
    assert config.kind == kinds.get(name.partition("-")[0], "autoencoder")
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
    config = load(name, "my.yaml")
    Path(name).unlink()
    assert config == load(name, name)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind must be autoencoder here, got 'diffusion'"):
        load_config(RunConfig, "ldm-quickstart")
    path = tmp_path / "my.yaml"
    path.write_text("kind: gan\n")
    assert train.main([str(path)]) == 2


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


TEXTS = [
    "2024_01",
    "0123",
    "001",
    "1e3",
    "yes",
    "12:30",
    "runs/a:b #c",
    "*.tar",
    "{000..003}.tar",
    "shards/{000..127}.tar",
]
TEXTS += [
    "a${b}",
    "\\\\${oc.env:HOME}",
    "'quoted'",
    "a=b",
    " spaces ",
    "[x",
    "&x",
    "~",
    "0x1f",
    ".inf",
    "NaN",
    "y",
    "true",
    "é 日本",
    "a: b",
    "-",
    "two\nlines\x85\u2028",
    "\ttab\x07\xa0",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_what_was_typed(text: str, tmp_path: Path) -> None:
    """On the command line, then written to config.yaml and read again by us and by any other reader of yaml."""
    config = load_config(RunConfig, "quickstart", ["data.source=folder", f"data.path={text}"])
    assert config.data.path == text
    written = to_yaml(config)
    (tmp_path / "config.yaml").write_text(written)
    assert load_config(RunConfig, str(tmp_path / "config.yaml")) == config
    if "${" not in text:  # which OmegaConf alone would replace, and needs a backslash
        assert yaml.safe_load(written)["data"]["path"] == text


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text not in ("???", "null")))
@example("\\${a}")
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    overrides = ["data.source=folder", f"data.path={text}", f"data.cache_dir={text}"]
    config = load_config(RunConfig, "quickstart", overrides)
    assert config.data.path == config.data.cache_dir == text
    values = OmegaConf.create(to_yaml(config))
    assert build_config(RunConfig, values, (), "written") == config  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.steps=0123", 123),
        ("train.steps=2_000", 2000),
        ("train.learning_rate=1e-3", 0.001),
        ("train.learning_rate=1", 1.0),
        ("train.tensorboard=no", False),
        ("train.tensorboard=True", True),
        ("train.betas=[0, 0.99]", [0.0, 0.99]),
        ("model.block_out_channels=[8,8,16,16]", [8, 8, 16, 16]),
        ("model.decoder_outer_norm=null", None),
        ("model.decoder_outer_norm=false", False),
        ("data.evaluation_size=null", None),
        ("data.evaluation_size=64", 64),
        ("train.mixed_precision=no", "float32"),
        ("run.dir=007", "007"),
    ],
)
def test_what_is_typed_is_read_by_the_type_of_its_key(override: str, value: object) -> None:
    config = load_config(RunConfig, "quickstart", [override])
    section, key = override.partition("=")[0].split(".")
    read = getattr(getattr(config, section), key)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=1e3", "train.steps must be a whole number such as 1000, got '1e3'"),
        ("train.steps=12:30", "train.steps must be a whole number such as 1000, got '12:30'"),
        ("train.steps=null", "train.steps must be a whole number such as 1000, got 'null'"),
        ("train.learning_rate=fast", "train.learning_rate must be a number such as 0.5, got 'fast'"),
        ("train.tensorboard=2", "train.tensorboard must be true or false, got '2'"),
        ("train.betas=0.5,0.9", r"train.betas must be a list such as \[1,2,3\], got '0.5,0.9'"),
        ("train.betas=[0.5,x]", "train.betas must be a number such as 0.5, got 'x'"),
        ("data.path=???", r"data.path must be a value, got \?\?\?"),
        ("train.learning_rate=nan", "train.learning_rate must be .*nan"),
        ("run.dir=", "run.dir must not be empty, got ''; leave run.dir= out"),
        ("train.start_from=", "train.start_from must not be empty"),
        ("data.path=\udce9t\udce9", r"data.path must be UTF-8, .*, got '\\udce9t\\udce9'; rename the file or folder"),
    ],
)
def test_what_is_not_of_the_type_of_its_key_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(RunConfig, "quickstart", [override])


@pytest.mark.parametrize(("text", "value"), [("2024_01", "202401"), ("yes", "True"), ("1e3", "1000.0")])
def test_a_file_whose_text_yaml_takes_for_a_number_is_refused(text: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(f"data:\n  path: {text}\n")
    with pytest.raises(ConfigError, match=rf"data.path must be text, got {value}, .* put it in quotes"):
        load_config(RunConfig, str(file))
    file.write_text(f"data:\n  path: '{text}'\n")
    assert load_config(RunConfig, str(file)).data.path == text


def test_words_stay_plain_in_what_is_written() -> None:
    lines = to_yaml(load_config(RunConfig, "quickstart")).splitlines()
    assert "  kind: litevae" in lines
    assert "  dir: runs/quickstart" in lines
    assert "  source: photographs" in lines or "  source: auto" in lines
