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
    CardRecord,
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
    loaded_variant: str | None = None
    """Of the weights in it."""

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
        model was loaded with and the one that is there already (if they are of its weights) and every results.json of
        `litevae.evaluate` in the folder, or one level below it, know. A README.md that is not as this method wrote it
        stays. Parts that
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
        place = CardPlace(repo_id or ".", variant)
        there = "" if repo_id is None else _card_on_hub(place, push.get("token"))
        self._write(folder, about, place, {**saved_with, **options}, there)
        if repo_id is not None:
            self._upload(folder, place, push, there)

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
        place = CardPlace(_create(repo_id, push), variant, subfolder)
        there = _card_on_hub(place, token)
        with tempfile.TemporaryDirectory() as temporary:
            saved_with = {"safe_serialization": safe_serialization, "variant": variant}
            self._write(Path(temporary), about, place, saved_with, there)
            return self._upload(Path(temporary), place, push, there)

    def _write(
        self,
        folder: Path,
        about: ModelFacts | None,
        place: CardPlace,
        saved_with: Mapping[str, Any],
        on_hub: str | None,
    ) -> None:
        """`on_hub`: the card that is on the Hub, or ""."""
        model = self._diffusers_model
        with pretrained.without_compiled_wrappers(model), _as_published(model, place.name != "."):
            is_main = saved_with.get("is_main_process", True)
            card = self._card(folder, about, place, on_hub) if is_main else None  # before its folder has other weights
            self._save_as_diffusers(folder, saved_with)
            if card is not None:
                write_card(folder, card, place.variant)

    def _card(self, folder: Path, about: ModelFacts | None, place: CardPlace, on_hub: str | None) -> str:
        weights, dtype = state_hash(self), _dtype_name(self)
        facts, measured = about or ModelFacts(), measurements_beside(folder, weights)
        if self.loaded_from is not None:
            text = read_card(self.loaded_from)
            known = handed_on(text or "")
            if text is not None and known is not None and self._is_of(known, weights):
                if about is None and not is_generated(text):
                    return text  # changed by hand, of these weights
                facts = facts.over(known.facts)
            measured += measurements_beside(self.loaded_from, weights)
            if self.loaded_from.name == "model":  # of a run, whose evaluations may be beside it
                measured += measurements_beside(self.loaded_from.parent, weights)
        for there in (read_card(folder), on_hub):  # what is about to be written anew
            known = handed_on(there or "")
            if known is not None and (known.weights, known.dtype) == (weights, dtype):
                facts = facts.over(known.facts)
        return build_card(self, facts.with_measurements(measured), weights, place)

    def _is_of(self, known: CardRecord, weights: str) -> bool:
        """Whether the card that the model was loaded with is of `weights`, or of those that they were rounded from."""
        if known.dtype == _dtype_name(self) or self.loaded_from is None:
            return known.weights == weights
        loading: Any = type(self)
        try:
            options = {"variant": self.loaded_variant, "torch_dtype": self._diffusers_model.dtype}
            return state_hash(loading.from_pretrained(self.loaded_from, **options)) == weights
        except (OSError, ValueError):  # the folder is gone, or holds another model by now
            return False

    def _upload(self, folder: Path, place: CardPlace, push: Mapping[str, Any], text: str | None) -> str:
        """`text`: the card that is on the Hub, or ""."""
        keeps = text != "" and not may_be_replaced(text, place.variant)
        if keeps and (text is None or not is_generated(text)):
            card = _card_name(place)
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
    model.loaded_variant = options.get("variant")
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


def _card_name(place: CardPlace) -> str:
    return CARD_NAME if place.subfolder is None else f"{place.subfolder}/{CARD_NAME}"


def _card_on_hub(place: CardPlace, token: str | None) -> str | None:
    """The card of a repository, "" where it has none; None: one that is no text."""
    try:
        with tempfile.TemporaryDirectory() as temporary:
            file = huggingface_hub.hf_hub_download(place.name, _card_name(place), token=token, local_dir=temporary)
            return read_card(Path(file).parent)
    except LocalEntryNotFoundError:  # the Hub did not answer
        raise
    except EntryNotFoundError:
        return ""


def _dtype_name(model: Publishing) -> str:
    return str(model._diffusers_model.dtype).removeprefix("torch.")


def forget_origin(model: Any) -> None:
    """Take from the config of a diffusers model where it was loaded from: a folder of this machine, say."""
    config = model._internal_dict
    model._internal_dict = FrozenDict({key: value for key, value in config.items() if key != "_name_or_path"})


@contextmanager
def _as_published(model: Any, is_published: bool) -> Iterator[None]:
    """Within, the config does not say where the model was found.

    Nor, where it goes to the Hub, in which folder a hybrid's teacher was: its evaluation here needs that.
    """
    config, teacher = model._internal_dict, model._internal_dict.get("teacher")
    forget_origin(model)
    if is_published and _is_folder(teacher):
        model._internal_dict = FrozenDict({**model._internal_dict, "teacher": public_name(teacher)})
    try:
        yield
    finally:
        model._internal_dict = config


def _is_folder(name: Any) -> bool:
    return bool(name) and os.path.isdir(name)
