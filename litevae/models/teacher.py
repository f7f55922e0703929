"""Which teachers and students can be in a `HybridAutoencoder`, and what of their configs does it keep?

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, AutoencoderKLFlux2

from litevae.config import LiteVAEConfig
from litevae_kernels.checks import wrong_kind, wrong_value

TEACHER_CLASSES: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderKLFlux2": AutoencoderKLFlux2}
# The fields of LiteVAEConfig that make an encoder; its channels are the teacher's.
ENCODER_FIELDS = (
    "wavelet_levels", "extraction", "shared_extraction", "extraction_channels", "extraction_multipliers",
    "nafnet_width", "nafnet_blocks", "aggregation", "aggregation_channels", "aggregation_multipliers", "vit_width",
    "vit_depth", "vit_heads", "encoder_normalization", "use_quant_conv", "dropout",
)  # fmt: skip
_OF_ENCODER = ("down_block_types", "use_quant_conv")
_DOWNSAMPLING = 8
_RULE = "be a diffusers AutoencoderKL or AutoencoderKLFlux2"
_PUBLISHED = "the `vae` of Stable Diffusion 1.5 to 3.5, SDXL, FLUX.1 or FLUX.2 is one"


def check_teacher(model: Any) -> Any:
    """The diffusers model of a teacher: `model`, or the one that a `StableDiffusionVAE` wraps.

    Args:
        model: an AutoencoderKL or AutoencoderKLFlux2 of diffusers with a latent at 1/8 of the image's sides, or a
            StableDiffusionVAE, which `litevae.load_model` makes of a folder with the first.

    Raises:
        TypeError: no such autoencoder.
        ValueError: a latent at another resolution, or a decoder that is missing.

    >>> from litevae import StableDiffusionVAE
    >>> teacher = StableDiffusionVAE.from_architecture(block_out_channels=(8, 8, 8, 8))
    >>> type(check_teacher(teacher)).__name__
    'AutoencoderKL'
    """
    vae: Any = getattr(model, "vae", model)
    kinds: Any = tuple(TEACHER_CLASSES.values())
    if isinstance(model, type) or not isinstance(vae, kinds):
        what = type(model).__name__ if hasattr(model, "parameters") else model
        if hasattr(model, "components"):
            way_out = "pass the pipeline's `vae`, or name its folder with the subfolder vae"
        elif isinstance(model, str | Path):
            way_out = "load it with litevae.load_model, or AutoencoderKL.from_pretrained(name, subfolder='vae')"
        else:
            way_out = f"{_PUBLISHED}; an autoencoder of another class has other conventions that a pipeline expects"
        raise wrong_kind("teacher", _RULE, what, way_out)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if factor != _DOWNSAMPLING:
        rule = f"divide the image's sides by {_DOWNSAMPLING} (4 block_out_channels)"
        got = f"by {factor}: block_out_channels {tuple(vae.config.block_out_channels)}"
        raise wrong_value("teacher", rule, got, _PUBLISHED)
    if getattr(vae, "decoder", None) is None:
        rule = "have its decoder, which a HybridAutoencoder keeps"
        raise wrong_value("teacher", rule, None, "load the whole autoencoder again with from_pretrained")
    return vae


def decoder_names(class_name: str) -> list[str]:
    """The arguments of a teacher's class that are not of its encoder alone."""
    names = inspect.signature(TEACHER_CLASSES[class_name].__init__).parameters
    return [name for name in names if name != "self" and name not in _OF_ENCODER]


def teacher_class_name(vae: Any) -> str:
    """ "AutoencoderKL" or "AutoencoderKLFlux2", also of a class derived from it."""
    return next(name for name, one in TEACHER_CLASSES.items() if isinstance(vae, one))


def student_architecture(student: Any, in_channels: int, latent_channels: int) -> LiteVAEConfig:
    """The arguments of a LiteVAE with the encoder that `student` says; those of its decoder mean nothing.

    Args:
        student: values for `ENCODER_FIELDS`; others keep their default.
        in_channels, latent_channels: the teacher's.

    Raises:
        TypeError, ValueError: another field, a value that it cannot have, or an encoder of other latents.
    """
    if not isinstance(student, Mapping):
        raise wrong_kind("student", "be a dict of fields of LiteVAEConfig", student)
    channels = {"in_channels": in_channels, "latent_channels": latent_channels}
    for name, value in student.items():
        if name in channels and value != channels[name]:
            raise wrong_value(name, f"be {channels[name]}, as the teacher's, or left out", value)
        if name not in ENCODER_FIELDS and name not in channels:
            rule = "is no argument of a LiteVAE encoder (the decoder and its arguments are the teacher's)"
            raise ValueError(f"{name!r} {rule}; they are {', '.join(ENCODER_FIELDS)}")
    levels = student.get("wavelet_levels")
    if isinstance(levels, list | tuple) and levels and levels[-1] != 3:
        rule = f"end in 3, for the teacher's latent at 1/{_DOWNSAMPLING} of the image's sides"
        raise wrong_value("wavelet_levels", rule, levels)
    return LiteVAEConfig(**{**channels, **student})


def check_config_names(names: Iterable[str]) -> None:
    """Raise a ValueError for the first of `names` that no HybridAutoencoder's config has."""
    valid = ["student", "teacher", "teacher_subfolder", "teacher_class"]
    valid += dict.fromkeys(name for class_name in TEACHER_CLASSES for name in decoder_names(class_name))
    for name in names:
        if name not in valid:
            raise ValueError(f"{name!r} is no argument of HybridAutoencoder; they are {', '.join(valid)}")
