"""The scale of the latents at the end of a run: measured on the training data, written into the model.

image -> DWT -> feature extraction -> aggregation -> [latent measured] -> decoder -> losses
"""

from typing import Any

import torch

from litevae.data import TrainingData
from litevae.evaluation.latents import measure_latents
from litevae.models.baseline import StableDiffusionVAE
from litevae.training.config import MEASURED_KEYS, RunConfig
from litevae.training.networks import Autoencoder

FEWEST_CROPS, MOST_CROPS = 64, 1024
TRAINED_PER_CROP = 8
"""One crop is encoded for so many that the run was trained on, so that a short run pays little."""
PIXELS_AT_ONCE = 2**18
GIVEN_KEYS = ("scaling_factor", "shift_factor")
SCALE_KEYS = (*GIVEN_KEYS, *MEASURED_KEYS, "latents_mean", "latents_std")  # the last two are an AutoencoderKL's


def scale_of(model: Autoencoder) -> dict[str, Any] | None:
    """What the config of a model says of the scale of its latents; None where it says nothing."""
    config: Any = model.vae.config if isinstance(model, StableDiffusionVAE) else model.config
    scale = {key: config[key] for key in SCALE_KEYS if config.get(key) is not None}
    return None if scale == {"scaling_factor": 1.0} else scale


def fixed_scale(config: RunConfig, kept: dict[str, Any] | None) -> dict[str, Any]:
    """What no measurement changes: what `scale_of` said of the model whose encoder stays, and what the config gives."""
    return {**(kept or {}), **{key: value for key, value in config.model.overrides.items() if key in GIVEN_KEYS}}


def measure_scale(
    config: RunConfig, model: Autoencoder, data: TrainingData, step: int, device: torch.device, fixed: dict[str, Any]
) -> dict[str, Any]:
    """The line of metrics.jsonl: the latents of the run's first crops, drawn anew; `scaling_factor` as it shall be.

    That is 1 / std, or the one of `fixed_scale`. A NoScaleError if the latents have none.
    """
    crops = min(max(step * config.train.batch_size // TRAINED_PER_CROP, FEWEST_CROPS), MOST_CROPS)
    at_once = max(1, min(crops, PIXELS_AT_ONCE // config.data.crop_size**2))
    found = measure_latents(model, data.first_crops(crops, at_once), device)
    return {
        "step": step,
        "kind": "latents",
        "crops": found.images,
        "mean": found.mean,
        "std": found.std,
        "channel_means": list(found.channel_means),
        "channel_stds": list(found.channel_stds),
        "scaling_factor": fixed.get("scaling_factor", found.scaling_factor),
    }


def write_scale(model: Autoencoder, line: dict[str, Any] | None, fixed: dict[str, Any]) -> None:
    """Put the numbers of `measure_scale`, if there are any, and then `fixed` into the model's config.

    Of an AutoencoderKL no channel's: SDXL's pipelines apply `latents_mean` and `latents_std` in addition to
    `scaling_factor`.
    """
    scale = dict(fixed)
    if line is not None:
        channels = zip(MEASURED_KEYS, (tuple(line["channel_means"]), tuple(line["channel_stds"])), strict=True)
        scale = {"scaling_factor": line["scaling_factor"], **dict(channels), **fixed}
    if isinstance(model, StableDiffusionVAE):
        model.vae.register_to_config(**{key: value for key, value in scale.items() if key not in MEASURED_KEYS})
    else:
        model.register_to_config(**scale)


def describe_scale(line: dict[str, Any]) -> str:
    """That line in words."""
    stds, measured = line["channel_stds"], 1 / line["std"]
    given = "" if line["scaling_factor"] == measured else f" as it was given (1 / std is {measured:.4g})"
    return (
        f"std {line['std']:.3g} (by channel {min(stds):.3g} to {max(stds):.3g}) of {line['crops']:,} training crops "
        f"at step {line['step']}, scaling_factor {line['scaling_factor']:.4g}{given}"
    )
