"""What `from_pretrained` checks of a folder, and diffusers would only warn of: one model, whole and fitting.

A folder is checked before loading, by its config.json and the headers of its weights; a model of the Hub afterwards.
At the end of the file: the weights that leave a model, as contiguous tensors under their own names.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import nn

from litevae_kernels.checks import wrong_kind

CONFIG_NAME = "config.json"
_SAVED_BY = "write the folder again with save_pretrained"
# What diffusers' EMAModel.save_pretrained adds to a model's config.json, and its from_pretrained reads there.
_OF_EMA_MODEL = {
    "decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"
}  # fmt: skip

Shapes = dict[str, tuple[int, ...]]


def check_before_loading(model_class: Any, path: str, options: Mapping[str, Any]) -> None:
    """Raise unless `path` is a folder with a whole and fitting model, or may be a name on the Hub.

    Args:
        model_class: LiteVAE, HybridAutoencoder, or what makes an AutoencoderKL.
        options: the other arguments of `from_pretrained`.
    """
    for name in ("torch_dtype", "dtype"):
        if not isinstance(options.get(name, torch.float32), torch.dtype | None):  # diffusers would load float32
            raise wrong_kind(name, "be a torch.dtype or None", options[name], "torch.float16, for example")
    folder = Path(path)
    if folder.is_file():
        raise NotADirectoryError(f"{path} must be a folder with a {CONFIG_NAME}, got a file; pass {folder.parent}")
    if not folder.is_dir():
        _check_may_be_on_hub(path)
        return
    folder = folder / (options.get("subfolder") or "")
    config = _read_config(folder)
    files = _weight_files(folder, options.get("variant"))
    if files is None:
        return
    with torch.device("meta"):
        model = model_class.from_config(config)
    _check_fit(folder, _read_shapes(files), model, bool(options.get("ignore_mismatched_sizes")))


def check_after_loading(path: str, info: Mapping[str, Any]) -> None:
    """Raise if diffusers' loading info has names that were missing or unexpected."""
    _check_names_fit(path, info["missing_keys"], info["unexpected_keys"])


def check_config(config: Mapping[str, Any], class_name: str, check: Callable[[Iterable[str]], None]) -> None:
    """Raise unless `config` is that of a `class_name`, whose arguments' names `check` takes."""
    saved_class = config.get("_class_name", class_name)
    if saved_class != class_name:
        raise ValueError(
            f"config must be that of a {class_name}, got one of {saved_class}; "
            f"load it with {saved_class}.from_pretrained"
        )
    check(name for name in config if not name.startswith("_") and name not in _OF_EMA_MODEL)


def _check_may_be_on_hub(path: str) -> None:
    """The Hub's names are "name" or "owner/name"; asking it for a mistyped folder takes half a minute offline."""
    parent = Path(path).parent
    in_a_folder = "/" in path and parent.is_dir()
    if not in_a_folder and path.count("/") <= 1 and not path.startswith((".", "/", "~")):
        return
    siblings = sorted(found.parent.name for found in parent.glob(f"*/{CONFIG_NAME}"))[:8]
    has = f"; {parent} has {', '.join(siblings)}" if siblings else ""
    raise FileNotFoundError(f"{path} must be an existing folder, got none of that name{has}")


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_NAME
    if not file.is_file():
        found = sorted(os.fspath(below.parent) for below in folder.glob(f"*/{CONFIG_NAME}"))[:8]
        way_out = f"did you mean {' or '.join(found)}?" if found else _SAVED_BY
        raise FileNotFoundError(f"{folder} must have a {CONFIG_NAME}, got none; {way_out}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, got {error}; {_SAVED_BY}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} must be a JSON object, got {type(config).__name__}; {_SAVED_BY}")
    return config


def _weight_files(folder: Path, variant: str | None) -> list[Path] | None:
    """The safetensors files of the model; None: it has none of them, but a pickle, which diffusers knows to load."""
    suffix = f".{variant}" if variant else ""
    index = folder / SAFE_WEIGHTS_INDEX_NAME.replace(".json", f"{suffix}.json")
    single = folder / SAFETENSORS_WEIGHTS_NAME.replace(".safetensors", f"{suffix}.safetensors")
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
    elif not single.is_file() and (folder / WEIGHTS_NAME.replace(".bin", f"{suffix}.bin")).is_file():
        return None
    else:
        files = [single]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{folder} must have its weights, {file.name}, got none; {_SAVED_BY}")
    return files


def _read_shapes(files: list[Path]) -> Shapes:
    """Name and shape of every tensor, from the headers; opening a file also checks that all of it is there."""
    shapes: Shapes = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                shapes |= {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{file} must be a whole safetensors file, got {file.stat().st_size} bytes that end or start wrongly "
                f"({error}); copy or download it again, or take an earlier checkpoint"
            ) from error
    return shapes


def _check_fit(folder: Path, found: Shapes, model: nn.Module, ignore_shapes: bool) -> None:
    expected: Shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check_names_fit(folder, expected.keys() - found.keys(), found.keys() - expected.keys())
    wrong = [name for name in expected if found[name] != expected[name]]
    if wrong and not ignore_shapes:
        name = wrong[0]
        raise ValueError(
            f"the weights in {folder} must fit its {CONFIG_NAME}: {name} must have shape {list(expected[name])}, "
            f"got {list(found[name])} ({len(wrong)} tensors differ); use the {CONFIG_NAME} saved with these weights"
        )


def _check_names_fit(path: object, missing: Any, unexpected: Any) -> None:
    for names, verdict in ((sorted(missing), "is missing"), (sorted(unexpected), "has no place in the model")):
        if names:
            raise ValueError(
                f"the weights in {path} must fit its {CONFIG_NAME}: {names[0]} {verdict} ({len(names)} such tensors); "
                f"use the {CONFIG_NAME} saved with these weights, or {_SAVED_BY}"
            )


def to_channels_last(model: nn.Module) -> None:
    """Weights as the model keeps them: files hold NCHW, and loading assigns what they hold.

    Not by `model.to`, which accelerate refuses where a `device_map` has put parts elsewhere. Those, which are on the
    meta device until they are used, come in NCHW each time.
    """
    for parameter in model.parameters():
        if parameter.dim() == 4 and not parameter.is_meta:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)


def make_contiguous(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Hook of `state_dict`: weights in channels_last become contiguous copies, as safetensors wants them.

    What is written into a copy does not reach the model. `keep_vars=True` gives the parameters themselves.
    """
    for name, tensor in state.items():
        is_own = name.startswith(prefix) and isinstance(tensor, torch.Tensor) and not isinstance(tensor, nn.Parameter)
        if is_own and not tensor.is_contiguous():
            state[name] = tensor.contiguous()


@contextmanager
def without_compiled_wrappers(model: nn.Module) -> Iterator[None]:
    """Within, parts that `torch.compile(part)` wrapped are the parts themselves: no `_orig_mod` in a weight's name."""
    wrapped = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if "_orig_mod" in child._modules
    ]
    try:
        for parent, name, child in wrapped:
            setattr(parent, name, child._orig_mod)
        yield
    finally:
        for parent, name, child in wrapped:
            setattr(parent, name, child)
