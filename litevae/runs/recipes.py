"""From a recipe and key=value overrides to a config, and the errors where they make none.

The schema is a dataclass of sections, each a dataclass (litevae/training/config.py has the autoencoder's). A recipe
may name one of the package with `base: NAME`, whose values it starts from.

What is typed after key= is read by the type of the key: text as it stands, so that data.path=2024_01 names a folder;
numbers, true and false, [lists], and null where the key may be null. A yaml file is read by yaml's rules.
"""

import dataclasses
import difflib
import re
import types
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litevae.runs.config import Config, ConfigError

C = TypeVar("C", bound=Config)
RECIPES_FOLDER = Path(str(resources.files("litevae") / "configs"))
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
RENAMED_OVERRIDES = {"loss=gaussian": "loss=no-wavelet", "loss=baseline": "loss=no-high-frequency"}


def recipes() -> dict[str, str]:
    """Name -> the recipe's first comment line, for every recipe that comes with the package."""
    return {file.stem: _first_comment(file) for file in sorted(RECIPES_FOLDER.glob("*.yaml"))}


def named_overrides() -> dict[str, str]:
    """section=name -> its first comment line, for every file in a section's folder: keys that belong together."""
    files = sorted(RECIPES_FOLDER.glob("*/*.yaml"), key=lambda file: (file.parent.name, file.stem))
    return {f"{file.parent.name}={file.stem}": _first_comment(file) for file in files}


def load_config(schema: type[C], recipe: str, overrides: Sequence[str] = ()) -> C:
    """The config of a recipe (by name) or yaml file (by path), with overrides such as "train.steps=1000".

    An override is section.key=value, or section=name for a file of `named_overrides`; the last one wins.

    Raises:
        ConfigError: no such recipe or file, no mapping in it, or a key, type or value that a run cannot have.
    """
    path = find_recipe(recipe)
    config = build_config(schema, _read_with_bases(path, sections_of(schema)), overrides, origin=str(path))
    if config.run.dir is None:
        config.run.dir = f"runs/{path.stem}"
    return config


def kind_of(file: Path) -> str:
    """What a recipe, or the config.yaml of a run, trains: its `kind`, or that of its base; "autoencoder" without.

    Of a file that is no recipe too: who loads it says what is wrong.
    """
    try:
        return str(_read_with_bases(file, ()).get("kind", "autoencoder"))
    except ConfigError:
        return "autoencoder"


def find_recipe(recipe: str) -> Path:
    """The yaml file that a command line's first word means."""
    path = Path(recipe).expanduser()
    if path.suffix.lower() in (".yaml", ".yml") or path.is_file():
        if path.is_file():
            return path
        if path.exists():
            raise ConfigError(f"a recipe must be a yaml file, got the folder {path}")
        folder = path.parent if path.parent.is_dir() else Path()
        near = nearest(path.name, [file.name for file in folder.iterdir()])
        raise ConfigError(f"no such file: {path}" + (f"; did you mean {folder / near}?" if near else ""))
    names = recipes()
    if recipe not in names:
        near = nearest(recipe, names)
        raise ConfigError(
            f"unknown recipe {recipe!r}{f'; did you mean {near}?' if near else ''} "
            f"(recipes: {', '.join(names)}; or give the path of a yaml file)"
        )
    return RECIPES_FOLDER / f"{recipe}.yaml"


def read_yaml(path: Path, sections: Iterable[str]) -> DictConfig:
    """The mapping in a yaml file; an empty file is an empty mapping. `sections` are named in errors."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and not isinstance(node, yaml.MappingNode):
            kind = "sequence" if isinstance(node, yaml.SequenceNode) else "scalar"
            raise ConfigError(
                f"{path} must hold a mapping of sections ({', '.join(sections)}), got a {kind} on its top level"
            )
        return cast(DictConfig, OmegaConf.create("{}" if node is None else text))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid yaml: {_one_line(error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def build_config(schema: type[C], values: DictConfig, overrides: Sequence[str], origin: str) -> C:
    """The defaults of `schema`, then `values` (of the file `origin`), then `overrides`, checked as in `load_config`."""
    sections = sections_of(schema)
    kind = values.pop("kind", schema.kind)
    if kind != schema.kind:
        raise ConfigError(f"{origin}: kind must be {schema.kind} here, got {kind!r}")
    layers = [(origin, values)] + [(override, _parse_override(override, sections)) for override in overrides]
    merged: Any = OmegaConf.structured(schema)
    for where, layer in layers:
        try:
            _check_keys(OmegaConf.to_container(layer), where, sections)
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            key = getattr(error, "full_key", None)
            raise ConfigError(f"{where}: {f'{key}: ' if key else ''}{_one_line(error)}") from None
    try:
        return cast(C, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{origin}: {_one_line(error)}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that looks most like `name`, if one does."""
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def sections_of(schema: type[Config]) -> dict[str, dict[str, Any]]:
    """Section -> key -> its type."""
    kinds = get_type_hints(schema)
    return {field.name: get_type_hints(kinds[field.name]) for field in dataclasses.fields(cast(Any, schema))}


def to_yaml(config: Config) -> str:
    """The yaml text that any reader of yaml, and `read_yaml`, reads as `config`."""
    return yaml.dump({"kind": config.kind, **config.as_dict()}, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes every text but plain words: yaml 1.1, yaml 1.2 and OmegaConf each take others for numbers or null."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_word = re.fullmatch(r"[A-Za-z/][\w/.-]*", text) and yaml.safe_load(text) == text and text not in "yYnN"
    style = None if is_word else "'" if text.isprintable() else '"'  # which alone keeps every line break as it is
    return dumper.represent_scalar("tag:yaml.org,2002:str", _literal(text), style=style)


_Dumper.add_representer(str, _represent_text)


def _literal(text: str) -> str:
    """The text in which OmegaConf interpolates nothing: a backslash before every ${, and those before it doubled."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _read_with_bases(path: Path, sections: Iterable[str]) -> DictConfig:
    """The values of a file over those of its base, a recipe of the package, which may have a base itself."""
    values, files = read_yaml(path, sections), [path]
    while (base := values.pop("base", None)) is not None:
        if str(base) not in recipes():
            raise ConfigError(f"{files[-1]}: base must be one of {', '.join(recipes())}, got {base!r}")
        file = RECIPES_FOLDER / f"{base}.yaml"
        if file in files:
            raise ConfigError(f"{files[-1]}: base must not lead back to its own file, got {base!r}")
        values = cast(DictConfig, OmegaConf.merge(read_yaml(file, sections), values))
        files.append(file)
    return values


def _first_comment(file: Path) -> str:
    return file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def _parse_override(override: str, sections: dict[str, dict[str, Any]]) -> DictConfig:
    path, equals, text = override.partition("=")
    if not (equals and path):
        raise ConfigError(f"an override must look like section.key=value, got {override!r}")
    section, dot, key = path.partition(".")
    if section in sections and not dot:
        if (RECIPES_FOLDER / section).is_dir() or "path" not in sections[section]:
            return read_yaml(_find_named_override(section, text), sections)
        dot, key = ".", "path"  # autoencoder=RUN is short for autoencoder.path=RUN
    kind = sections.get(section, {}).get(key, str)  # an unknown key is refused with those of files
    value = _parse(text, kind, path)
    return OmegaConf.create({section: {key: value}} if dot else {section: value})


def _parse(text: str, kind: Any, key: str) -> Any:
    """What `text` means for a key of this type; `key` is named in errors."""
    kind, may_be_null = _without_none(kind)
    if may_be_null and text == "null":
        return None
    if kind is str:
        if not text:  # of a shell's variable that is not set; a path would be the current folder
            raise ConfigError(f"{key} must not be empty, got ''; leave {key}= out")
        if text.encode(errors="ignore").decode() != text:
            raise ConfigError(f"{key} must be UTF-8, as config.yaml is, got {text!r}; rename the file or folder")
        return _literal(text)
    if get_origin(kind) is list:
        if not (text.startswith("[") and text.endswith("]")):
            raise ConfigError(f"{key} must be a list such as [1,2,3], got {text!r}")
        items = text[1:-1].split(",") if text[1:-1].strip() else []
        return [_parse(item.strip(), get_args(kind)[0], key) for item in items]
    if kind is bool:
        if text.lower() not in _BOOLS:
            raise ConfigError(f"{key} must be true or false, got {text!r}")
        return _BOOLS[text.lower()]
    try:
        return kind(text)
    except ValueError:
        what = "a whole number such as 1000" if kind is int else "a number such as 0.5"
        raise ConfigError(f"{key} must be {what}, got {text!r}") from None


def _without_none(kind: Any) -> tuple[Any, bool]:
    """A key's type without None, and whether it may be None."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind, False
    (only,) = (option for option in get_args(kind) if option is not type(None))
    return only, True


def _find_named_override(section: str, name: str) -> Path:
    if f"{section}={name}" in RENAMED_OVERRIDES:
        raise ConfigError(f"{section}={name} is now called {RENAMED_OVERRIDES[f'{section}={name}']}")
    names = [known.partition("=")[2] for known in named_overrides() if known.startswith(f"{section}=")]
    if name not in names:
        near = nearest(name, names)
        raise ConfigError(
            f"{section}={name}: {section} must be followed by a key ({section}.key=value)"
            + (f", or be one of {', '.join(names)}" if names else "")
            + (f"; did you mean {section}={near}?" if near else "")
        )
    return RECIPES_FOLDER / section / f"{name}.yaml"


def _check_keys(values: Any, where: str, sections: dict[str, dict[str, Any]]) -> None:
    """Refuse unknown sections and keys, naming the nearest that exists, and text that yaml took for a number."""
    all_keys = [f"{section}.{key}" for section, keys in sections.items() for key in keys]
    for section, content in values.items():
        if section not in sections:
            near = nearest(str(section), sections) or next((k for k in all_keys if k.endswith(f".{section}")), None)
            raise ConfigError(
                f"{where}: unknown section {section!r}{f'; did you mean {near}?' if near else ''} "
                f"(sections: {', '.join(sections)})"
            )
        if not isinstance(content, dict):
            raise ConfigError(f"{where}: {section} must be a mapping of keys, got {content!r}")
        for key, value in content.items():
            if value == "???":  # which OmegaConf takes for a value that is missing, and leaves out
                raise ConfigError(f"{where}: {section}.{key} must be a value, got ???")
            if key in sections[section]:
                _check_text(value, sections[section][key], f"{where}: {section}.{key}")
            else:
                near = nearest(str(key), sections[section])
                wanted = f"{section}.{near}" if near else next((k for k in all_keys if k.endswith(f".{key}")), None)
                hint = f"; did you mean {wanted}?" if wanted else f" (keys: {', '.join(sections[section])})"
                raise ConfigError(f"{where}: unknown key {section}.{key}{hint}")


def _check_text(value: Any, kind: Any, key: str) -> None:
    is_no = value is False and key.endswith(".mixed_precision")  # `mixed_precision: no`, the older name of float32
    if _without_none(kind)[0] is str and isinstance(value, bool | int | float) and not is_no:
        raise ConfigError(f"{key} must be text, got {value!r}, which yaml made of it; put it in quotes in the file")


def _one_line(error: Exception) -> str:
    """The first line of an OmegaConf message; of a yaml error also its place."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{getattr(error, 'problem', 'error')}, line {mark.line + 1}, column {mark.column + 1}"
    return str(error).splitlines()[0]
