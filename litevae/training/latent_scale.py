"""The scale of the latents at the end of a run: measured on the training data, written into the model.

image -> DWT -> feature extraction -> aggregation -> [latent measured] -> decoder -> losses
"""

from typing import Any

import torch

from litevae.data import TrainingData
from litevae.evaluation.latents import measure_latents
from litevae.models.baseline import StableDiffusionVAE
from litevae.training.config import RunConfig
from litevae.training.networks import Autoencoder

FEWEST_CROPS, MOST_CROPS = 64, 1024
TRAINED_PER_CROP = 8
"""One crop is encoded for so many that the run was trained on, so that a short run pays little."""
PIXELS_AT_ONCE = 2**18


def measure_scale(
    config: RunConfig, model: Autoencoder, data: TrainingData, step: int, device: torch.device
) -> dict[str, Any]:
    """The line of metrics.jsonl: the latents of the run's first crops, drawn anew; `scaling_factor` as it shall be.

    That is 1 / std, or what `model.scaling_factor` gives. A NoScaleError if the latents have none.
    """
    crops = min(max(step * config.train.batch_size // TRAINED_PER_CROP, FEWEST_CROPS), MOST_CROPS)
    at_once = max(1, min(crops, PIXELS_AT_ONCE // config.data.crop_size**2))
    found = measure_latents(model, data.first_crops(crops, at_once), device)
    given = config.model.scaling_factor  # type: ignore[attr-defined]  # an argument of LiteVAE's, added by name
    return {
        "step": step,
        "kind": "latents",
        "crops": found.images,
        "mean": found.mean,
        "std": found.std,
        "channel_means": list(found.channel_means),
        "channel_stds": list(found.channel_stds),
        "scaling_factor": found.scaling_factor if given is None else given,
    }


def write_scale(model: Autoencoder, line: dict[str, Any]) -> None:
    """Put the numbers of `measure_scale` into the model's config: of an AutoencoderKL `scaling_factor` alone.

    Its own `latents_mean` and `latents_std` stay unset: SDXL's pipelines apply them in addition to `scaling_factor`.
    """
    if isinstance(model, StableDiffusionVAE):
        model.vae.register_to_config(scaling_factor=line["scaling_factor"])
        return
    model.register_to_config(
        scaling_factor=line["scaling_factor"],
        latent_channel_means=tuple(line["channel_means"]),
        latent_channel_stds=tuple(line["channel_stds"]),
    )


def describe_scale(line: dict[str, Any]) -> str:
    """That line in words."""
    stds, measured = line["channel_stds"], 1 / line["std"]
    given = "" if line["scaling_factor"] == measured else f" as it was given (1 / std is {measured:.4g})"
    return (
        f"std {line['std']:.3g} (by channel {min(stds):.3g} to {max(stds):.3g}) of {line['crops']:,} training crops "
        f"at step {line['step']}, scaling_factor {line['scaling_factor']:.4g}{given}"
    )
