"""How does a model leave for a folder or the Hugging Face Hub, and what comes with its weights?"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from diffusers.configuration_utils import FrozenDict
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from torch import nn

from litevae.models import pretrained
from litevae.models.model_card import (
    CARD_NAME,
    build_card,
    handed_on,
    is_generated,
    may_be_replaced,
    measurements_beside,
    read_card,
    write_card,
)
from litevae.models.model_facts import CardPlace, ModelFacts, public_name
from litevae.state_hash import state_hash
from litevae_kernels.checks import wrong_kind

_DOWNLOAD = ("revision", "subfolder", "cache_dir", "token", "local_files_only", "force_download")
_PUSH = ("repo_id", "private", "token", "commit_message", "create_pr")


class Publishing(nn.Module):
    """`save_pretrained` and `push_to_hub` of diffusers, which also write a model card and lose none."""

    loaded_from: Path | None = None
    """The folder whose card is handed on: on this machine, or in the Hub's cache."""

    @property
    def _diffusers_model(self) -> Any:
        """The diffusers model that holds the config."""
        raise NotImplementedError

    def _save_as_diffusers(self, folder: Path, options: Mapping[str, Any]) -> None:
        """diffusers' `save_pretrained`."""
        raise NotImplementedError

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        save_function: Callable[..., Any] | None = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        push_to_hub: bool = False,
        *,
        about: ModelFacts | None = None,
        **options: Any,
    ) -> None:
        """diffusers' `save_pretrained`, with a model card: config.json, safetensors and README.md.

        The card says what the model is, how it was trained and what was measured, as far as `about`, the card that the
        model was loaded with (if its weights are still those) and every results.json of `litevae.evaluate` in the
        folder, or one level below it, know. A README.md that is not as this method wrote it stays. Parts that
        torch.compile has wrapped are saved as they are inside.

        Args:
            variant: as "fp16", a part of the weights' file name; `from_pretrained(variant=...)` reads it.
            push_to_hub: upload the folder too; `repo_id` (the folder's name without), `private`, `token`,
                `commit_message`, `create_pr` as of `push_to_hub`. A README.md on the Hub that is not as this method
                wrote it stays.
            about: what the card is to say.

        Raises:
            NotADirectoryError: `save_directory` is a file.

        >>> import tempfile
        >>> from litevae import ModelFacts
        >>> folder = tempfile.mkdtemp()
        >>> model = LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8))
        >>> model.save_pretrained(folder, about=ModelFacts(license="mit"))
        >>> sorted(os.listdir(folder))
        ['README.md', 'config.json', 'diffusion_pytorch_model.safetensors']
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise NotADirectoryError(f"save_directory must be a folder, got the file {folder}; pass another name")
        if about is not None and not isinstance(about, ModelFacts):
            raise wrong_kind("about", "be a ModelFacts or None", about)
        push = {name: options.pop(name) for name in _PUSH if name in options} if push_to_hub else {}
        repo_id = None if not push_to_hub else _create(push.pop("repo_id", None) or folder.resolve().name, push)
        saved_with: dict[str, Any] = {"safe_serialization": safe_serialization, "variant": variant}
        saved_with |= {"max_shard_size": max_shard_size}
        saved_with |= {"is_main_process": is_main_process, "save_function": save_function}
        self._write(folder, about, CardPlace(repo_id or ".", variant), {**saved_with, **options})
        if repo_id is not None:
            self._upload(folder, CardPlace(repo_id, variant), push)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
        *,
        about: ModelFacts | None = None,
    ) -> str:
        """Upload the model and its card to the Hugging Face Hub; returns the address of the commit.

        Args:
            repo_id: "owner/name", or "name" in your own account; it is created if it is not there.
            commit_message: None: "Upload LiteVAE".
            private: of a new repository. None: as the owner's default.
            token: as huggingface_hub takes it; None: the one of `hf auth login`.
            create_pr: as a pull request.
            safe_serialization: False writes a pickle, which nobody needs.
            variant, about: as of `save_pretrained`.
            subfolder: of the repository, as "vae" in a pipeline's.

        A README.md that is there already, and is not as this method wrote it, stays.
        """
        push = {"private": private, "token": token, "commit_message": commit_message, "create_pr": create_pr}
        name = _create(repo_id, push)
        with tempfile.TemporaryDirectory() as temporary:
            saved_with = {"safe_serialization": safe_serialization, "variant": variant}
            self._write(Path(temporary), about, CardPlace(name, variant, subfolder), saved_with)
            return self._upload(Path(temporary), CardPlace(name, variant, subfolder), push)

    def _write(self, folder: Path, about: ModelFacts | None, place: CardPlace, saved_with: Mapping[str, Any]) -> None:
        model = self._diffusers_model
        with pretrained.without_compiled_wrappers(model), _without_local_path(model, place.name != "."):
            self._save_as_diffusers(folder, saved_with)
            if saved_with.get("is_main_process", True):
                write_card(folder, self._card(folder, about, place), place.variant)

    def _card(self, folder: Path, about: ModelFacts | None, place: CardPlace) -> str:
        weights, dtype = state_hash(self), str(self._diffusers_model.dtype).removeprefix("torch.")
        facts, measured = about or ModelFacts(), measurements_beside(folder, weights)
        if self.loaded_from is not None:
            text = read_card(self.loaded_from)
            known = None if text is None else handed_on(text, weights, dtype)
            if text is not None and known is not None and about is None and not is_generated(text):
                return text  # changed by hand, of these weights
            facts = facts.over(known or ModelFacts())
            measured += measurements_beside(self.loaded_from, weights)
            if self.loaded_from.name == "model":  # of a run, whose evaluations may be beside it
                measured += measurements_beside(self.loaded_from.parent, weights)
        return build_card(self, facts.with_measurements(measured), weights, place)

    def _upload(self, folder: Path, place: CardPlace, push: Mapping[str, Any]) -> str:
        card = CARD_NAME if place.subfolder is None else f"{place.subfolder}/{CARD_NAME}"
        text = _card_on_hub(place.name, card, push.get("token"))
        keeps = text != "" and not may_be_replaced(text, place.variant)
        if keeps and (text is None or not is_generated(text)):
            warnings.warn(f"{place.name} has a {card} that was written by hand: it stays as it is", stacklevel=3)
        commit = huggingface_hub.upload_folder(
            repo_id=place.name,
            folder_path=folder,
            path_in_repo=place.subfolder,
            token=push.get("token"),
            commit_message=push.get("commit_message") or f"Upload {type(self).__name__}",
            create_pr=push.get("create_pr", False),
            ignore_patterns=[CARD_NAME] if keeps else None,
        )
        return str(commit.commit_url)


def remember_folder(model: Publishing, name: str, options: Mapping[str, Any]) -> None:
    """Tell a model that `from_pretrained(name, **options)` loaded where its card is, if it has one.

    On the Hub that is one small request more; where it fails, the model has no card to hand on.
    """
    folder = Path(name, options.get("subfolder") or "")
    if folder.is_dir():
        model.loaded_from = folder.resolve()
        return
    told = {key: options[key] for key in _DOWNLOAD if options.get(key) is not None}
    with contextlib.suppress(OSError, HfHubHTTPError, ValueError):
        model.loaded_from = Path(huggingface_hub.hf_hub_download(name, CARD_NAME, **told)).parent


def _create(repo_id: str, push: Mapping[str, Any]) -> str:
    """Make a repository unless it is there; returns its whole name."""
    made = huggingface_hub.create_repo(repo_id, private=push.get("private"), token=push.get("token"), exist_ok=True)
    return made.repo_id


def _card_on_hub(repo_id: str, name: str, token: str | None) -> str | None:
    """The card of a repository, "" where it has none; None: one that is no text."""
    try:
        with tempfile.TemporaryDirectory() as temporary:
            file = huggingface_hub.hf_hub_download(repo_id, name, token=token, local_dir=temporary)
            return read_card(Path(file).parent)
    except LocalEntryNotFoundError:  # the Hub did not answer
        raise
    except EntryNotFoundError:
        return ""


@contextmanager
def _without_local_path(model: Any, is_published: bool) -> Iterator[None]:
    """Within, the config does not say in which folder of this machine the model was found: config.json is published.

    Nor, where it goes to the Hub, in which folder a hybrid's teacher was: its evaluation here needs that.
    """
    config = model._internal_dict
    own, teacher = config.get("_name_or_path"), config.get("teacher")
    changed = {key: value for key, value in config.items() if key != "_name_or_path" or not _is_folder(own)}
    if is_published and _is_folder(teacher):
        changed |= {"teacher": public_name(teacher)}
    model._internal_dict = FrozenDict(changed)
    try:
        yield
    finally:
        model._internal_dict = config


def _is_folder(name: Any) -> bool:
    return bool(name) and os.path.isdir(name)
