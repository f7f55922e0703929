"""How a model is made from a config or a folder: by diffusers, but what that ignores with a warning is an error."""

from __future__ import annotations

import os
from typing import Any, cast

from torch import nn

from litevae.config import check_names
from litevae.models import pretrained, publishing


class StrictLoading:
    """`from_config` and `from_pretrained` of a diffusers model, before whose class it stands among the bases."""

    _saved_as: str
    """The class that its config.json names."""
    _check_names = staticmethod(check_names)
    """Raises a ValueError for the first of some names that is no argument of the class."""

    @property
    def _in_channels_last(self) -> nn.Module:
        """The part whose weights are laid out so."""
        return cast(nn.Module, self)

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """diffusers' `from_config`, which here refuses what it would ignore with a warning.

        Raises:
            ValueError: the config of another class, or an argument that the class does not have.
        """
        if isinstance(config, str | os.PathLike):
            config = cast(Any, cls).load_config(config)
        if isinstance(config, dict):
            pretrained.check_config(config, cls._saved_as, cls._check_names)
        cls._check_names(kwargs.keys() - {"dtype"})
        return cast(Any, super()).from_config(config, return_unused_kwargs, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """The model that `save_pretrained` wrote: diffusers' `from_pretrained`, strict.

        Args:
            pretrained_model_name_or_path: a folder, or a model's name on the Hugging Face Hub.
            kwargs: diffusers' own, e.g. `torch_dtype`, `subfolder`, `variant`.

        Raises:
            FileNotFoundError: no such folder, or no config.json or weights in it.
            ValueError: a model of another class, an unknown argument in config.json, or weights that are cut off or
                do not fit the model (missing, unexpected, or of another shape), with the first name that does not fit.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        path = os.path.expanduser(pretrained_model_name_or_path)
        pretrained.check_before_loading(cls, path, kwargs)
        model, info = cast(Any, super()).from_pretrained(path, output_loading_info=True, **kwargs)
        pretrained.check_after_loading(path, info)
        publishing.remember_folder(model, path, kwargs)
        pretrained.to_channels_last(model._in_channels_last)
        return (model, info) if wants_info else model
