"""`load_model` and `load_autoencoder`: a trained autoencoder, whichever class wrote it.

Commands and benchmarks import this file. It knows models, runs and training; none of them imports it.
"""

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, cast

from torch import nn

from litevae.models.baseline import StableDiffusionVAE
from litevae.models.hybrid import HybridAutoencoder
from litevae.models.litevae import LiteVAE
from litevae_kernels.checks import wrong_value

Autoencoder = LiteVAE | StableDiffusionVAE | HybridAutoencoder
_CLASSES: dict[str, type[LiteVAE] | type[StableDiffusionVAE] | type[HybridAutoencoder]] = {
    "LiteVAE": LiteVAE,
    "HybridAutoencoder": HybridAutoencoder,
    "AutoencoderKL": StableDiffusionVAE,
}
_RULE = "must be a run's folder, a folder written by save_pretrained, or owner/name on the Hugging Face Hub"


def load_model(
    folder_or_hub_name: str | os.PathLike[str],
    *,
    variant: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Autoencoder:
    """The model of a run, of a folder or of the Hugging Face Hub, in eval mode on the CPU.

    Args:
        folder_or_hub_name: one of
            a run's folder: its model/ or, where the run is not finished, its newest checkpoint (a warning says so);
            the averaged weights where the run has them;
            a folder written by save_pretrained of LiteVAE, HybridAutoencoder, StableDiffusionVAE or diffusers'
            AutoencoderKL;
            a name on the Hub, "owner/name"; never asked for one in runs/.
        variant: the weights that `save_pretrained(variant=...)` wrote, as "fp16"; the model is in float32 all the
            same, as `from_pretrained` makes it.
        revision: on the Hub, a branch, tag or commit.
        token: of a private model on the Hub; None: the one of `hf auth login`.

    Raises:
        FileNotFoundError: there is no model. The message names the place, what is there and the way out.
        ValueError: there is one that cannot be loaded, or an argument is for another kind of place; likewise.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8)).save_pretrained(folder)
    >>> type(load_model(folder)).__name__
    'LiteVAE'
    """
    name = os.fspath(folder_or_hub_name)
    path = Path(name).expanduser()
    is_on_hub = _is_hub_name(name)
    if revision is not None and not is_on_hub:
        raise wrong_value("revision", f"be left out for {name}, which is no name on the Hub", revision)
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return _from_pretrained(str(folder), _saved_class(folder), variant=variant)
    if (path / "config.yaml").is_file():
        if variant is not None:
            raise wrong_value("variant", f"be left out for {name}, an unfinished run, which has none", variant)
        return _from_checkpoint(path)
    if not is_on_hub:
        raise _no_model(path)
    return _from_hub(name, variant, {"revision": revision, "token": token})


def _is_hub_name(name: str) -> bool:
    """Whether it may be owner/name on the Hub, and is no place on this machine."""
    path = Path(name).expanduser()
    is_local = path.exists() or path.parts[:1] == ("runs",) or (path.parent.is_dir() and "/" in name)
    return not is_local and re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def load_autoencoder(folder_or_hub_name: str | os.PathLike[str], subfolder: str | None = None) -> nn.Module:
    """What `load_model` loads or any other autoencoder of diffusers, in eval mode on the CPU.

    Args:
        folder_or_hub_name: as of `load_model`.
        subfolder: where the autoencoder is in it, such as "vae" in a pipeline.

    Raises:
        FileNotFoundError, ValueError: as of `load_model`.
    """
    name = os.fspath(folder_or_hub_name)
    path = Path(name).expanduser()
    folder = path / (subfolder or "")
    if (folder / "config.json").is_file() and _saved_class(folder) not in _CLASSES:
        return _from_diffusers(_saved_class(folder), str(folder))
    if path.exists():
        return load_model(folder)
    if not _is_hub_name(name):
        raise _no_model(path)
    try:
        saved_class = LiteVAE.load_config(name, subfolder=subfolder).get("_class_name", "LiteVAE")
        if saved_class in _CLASSES:
            return _CLASSES[saved_class].from_pretrained(name, subfolder=subfolder).eval()
    except OSError as error:
        raise _not_on_hub(name, error) from error
    return _from_diffusers(saved_class, name, subfolder=subfolder)


def _from_diffusers(class_name: str, name: str, **options: Any) -> nn.Module:
    """An autoencoder whose weights are all there."""
    import diffusers
    from safetensors import SafetensorError

    kind = getattr(diffusers, class_name, None)
    if not getattr(kind, "__module__", "").startswith("diffusers.models.autoencoders."):
        rule = f"hold an autoencoder that diffusers {diffusers.__version__} knows"
        raise ValueError(f"{name} must {rule}, got a {class_name}; a pipeline's is in --subfolder vae")
    rule = f"{name} must hold the weights of its {class_name}"
    try:
        model, info = cast(Any, kind).from_pretrained(name, output_loading_info=True, **options)
    except OSError as error:
        raise FileNotFoundError(f"{rule}, got: {_one_line(error)}") from error
    except (SafetensorError, RuntimeError, ValueError) as error:  # cut off, or of other shapes
        raise ValueError(f"{rule}, got: {_one_line(error)}") from error
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise ValueError(f"{rule}, got others: {wrong[0]} does not fit")
    loaded: nn.Module = model.eval()
    return loaded


def _saved_class(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name", "LiteVAE"))
    except (ValueError, AttributeError):
        return "LiteVAE"  # whose from_pretrained says what is wrong with the file


def _from_pretrained(name: str, saved_class: str, **options: Any) -> Autoencoder:
    if saved_class not in _CLASSES:
        *others, last = _CLASSES
        raise ValueError(
            f"{name} must hold a {', '.join(others)} or {last}, got a {saved_class}; "
            f"load it with {saved_class}.from_pretrained"
        )
    model: Autoencoder = _CLASSES[saved_class].from_pretrained(name, **options)
    return model.eval()


def _from_checkpoint(run: Path) -> Autoencoder:
    from litevae.runs.checkpoint import CheckpointError, load_newest_checkpoint, load_state  # need the extra "train"
    from litevae.runs.config import ConfigError
    from litevae.runs.run_folder import RunFolder
    from litevae.training.config import RunConfig
    from litevae.training.networks import build_autoencoder
    from litevae.training.snapshot import KEYS

    folder = RunFolder(run)
    try:
        model = build_autoencoder(folder.read_config(RunConfig).model)
        checkpoint = load_newest_checkpoint(folder.checkpoints, KEYS)
        load_state(model, checkpoint["ema"] or checkpoint["model"], str(folder.checkpoints))
    except (CheckpointError, ConfigError) as error:
        raise ValueError(
            f"{run} must hold model/ or a whole checkpoint, got an unfinished run without: {error}; "
            "train it again, or pass another model"
        ) from error
    warnings.warn(f"{run} is not finished: using its checkpoint of step {checkpoint['step']}", stacklevel=3)
    return model.eval()


def _from_hub(name: str, variant: str | None, options: dict[str, Any]) -> Autoencoder:
    try:
        config = LiteVAE.load_config(name, **options)
        return _from_pretrained(name, config.get("_class_name", "LiteVAE"), variant=variant, **options)
    except OSError as error:
        raise _not_on_hub(name, error) from error


def _not_on_hub(name: str, error: OSError) -> FileNotFoundError:
    return FileNotFoundError(
        f"{name} {_RULE}, got no such folder, and from the Hub: {_one_line(error)}; "
        "check the name, or download the model and pass its folder"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _no_model(path: Path) -> FileNotFoundError:
    around = path if path.is_dir() else path.parent
    nearby, no_names = [], "it is empty"
    try:
        nearby = sorted(around.iterdir())
    except OSError as error:
        no_names = str(error.strerror)
    if path.is_dir():
        names = ", ".join(child.name for child in nearby[:8])
        found = f"a folder with neither config.json nor config.yaml ({names or no_names})"
    else:
        found = "a file" if path.exists() else "nothing of that name"
    others = [around, *nearby] if path.is_file() else nearby
    models = [str(other) for other in others if _has_model(other)][:8]
    way_out = f"; did you mean {' or '.join(models)}?" if models else ""
    return FileNotFoundError(f"{path} {_RULE}, got {found}{way_out}")


def _has_model(folder: Path) -> bool:
    try:
        saved = [place for place in (folder, folder / "model") if (place / "config.json").is_file()]
        return (folder / "config.yaml").is_file() or any(_saved_class(place) in _CLASSES for place in saved)
    except OSError:  # it cannot be read
        return False
