"""What does a model's card tell its reader: what it is, how to use it, how it was trained, what was measured?"""

from collections.abc import Sequence
from typing import Any

from litevae.config import PRESETS
from litevae.cost import parameter_count
from litevae.models.model_facts import CardPlace, ModelFacts, public_name

_PAPER = "[LiteVAE](https://arxiv.org/abs/2405.14477)"
_ENCODER = (
    "encoder_type", "wavelet_levels", "extraction", "shared_extraction", "extraction_channels",
    "extraction_multipliers", "aggregation", "aggregation_channels", "aggregation_multipliers", "encoder_normalization",
)  # fmt: skip
_UNITS = {"psnr": "PSNR (dB)", "ssim": "SSIM"}


def model_title(model: Any) -> str:
    """LiteVAE-B where the encoder is one of the paper's sizes, else LiteVAE; of the baseline its class in diffusers.

    A hybrid's encoder counts.
    """
    if not hasattr(model, "architecture"):
        return "AutoencoderKL"
    own = model.architecture
    sizes = [
        size for size, one in PRESETS.items() if all(getattr(one, name) == getattr(own, name) for name in _ENCODER)
    ]
    return f"LiteVAE-{sizes[0]}" if sizes else "LiteVAE"


def card_text(model: Any, facts: ModelFacts, place: CardPlace) -> str:
    """The Markdown below the YAML."""
    return "\n".join(
        [
            f"# {model_title(model)}",
            "",
            _summary(model),
            "",
            *_table(("", ""), _sizes(model)),
            "",
            "## Use",
            "",
            *_example(model, place),
            "",
            "## Training",
            "",
            *_training(facts),
            "",
            "## Evaluation",
            "",
            *_evaluation(facts),
            "",
            "## License",
            "",
            *_license(facts),
        ]
    )


def _summary(model: Any) -> str:
    factor = model.downsampling
    shapes = f"images of {_config(model).in_channels} channels as latents of {model.latent_channels} channels"
    text = f"An autoencoder for latent diffusion: {shapes}, with each side divided by {factor}."
    if _class_name(model) == "HybridAutoencoder":
        return f"{text} It is the encoder of a {_PAPER}, for the latents and the decoder of {_teacher(model)}."
    if hasattr(model, "architecture"):
        return f"{text} It is a {_PAPER}, whose encoder leaves most of the work to a Haar wavelet transform."
    return f"{text} It has the architecture of Stable Diffusion's, and is the baseline that {_PAPER} is compared with."


def _sizes(model: Any) -> list[tuple[str, str]]:
    config = _config(model)
    encoder, decoder = ((model.encoder, model.quant_conv), (model.decoder, model.post_quant_conv))
    kind = f", {config.decoder_normalization}" if _class_name(model) == "LiteVAE" else ""
    widths = config.get("decoder_block_out_channels") or config.block_out_channels
    scale = f"{config.scaling_factor:.6g}" if "scaling_factor" in config else "none: `bn` holds each channel's"
    if config.get("shift_factor") is not None:
        scale += f", after subtracting {config.shift_factor:.6g}"
    return [
        ("Encoder", f"{parameter_count(*encoder):,} parameters"),
        ("Decoder", f"{parameter_count(*decoder):,} parameters, widths {_list(widths)}{kind}"),
        ("Latent", f"{model.latent_channels} channels, 1/{model.downsampling} of height and width"),
        ("`scaling_factor`", scale),
        ("Weights", str(model.dtype).removeprefix("torch.")),
    ]


def _example(model: Any, place: CardPlace) -> list[str]:
    kind = _class_name(model)
    options = {"subfolder": place.subfolder, "variant": place.variant}
    told = ", ".join([f'"{place.name}"', *(f'{name}="{value}"' for name, value in options.items() if value)])
    here = ", in this folder" if place.name == "." else ""
    others = "diffusers' pipelines take it as their `vae`"
    if kind == "HybridAutoencoder":
        others = f"The pipelines of {_teacher(model)} take it as their `vae`"
    if kind == "StableDiffusionVAE":
        others += "; its own AutoencoderKL reads it too, unless the encoder has widths of its own"
    return [
        f"With the Python package `litevae`{here}:",
        "",
        "```python",
        "import torch",
        f"from litevae import {kind}",
        f"vae = {kind}.from_pretrained({told})",
        f"latent = vae.encode(torch.rand(1, {_config(model).in_channels}, 256, 256) * 2 - 1).latent_dist.mode()",
        "image = vae.decode(latent).sample",
        "```",
        "",
        f"Images are in [-1, 1]. {others}.",
    ]


def _training(facts: ModelFacts) -> list[str]:
    if not facts.training:
        return ["Not recorded: these weights were not saved by a run of `python -m litevae.train`."]
    return _table(("", ""), list(facts.training.items()))


def _evaluation(facts: ModelFacts) -> list[str]:
    if not facts.measurements:
        return ["Not recorded. `python -m litevae.evaluate` measures reconstructions."]
    rows = [
        (one.data, f"{one.images:,}", one.size, _UNITS.get(one.metric, one.metric), f"{one.value:.4g}", one.source)
        for one in facts.measurements
    ]
    header = ("Data", "Images", "Size", "Metric", "Value", "Measured by")
    return ["Of reconstructions, from the mode of the posterior unless it says a sample:", "", *_table(header, rows)]


def _license(facts: ModelFacts) -> list[str]:
    if facts.license is not None:
        return [f"The weights: {facts.license}."]
    return [
        "Not chosen yet: whoever publishes these weights sets `license` at the top of this file, or saves them with "
        '`about=ModelFacts(license="...")`. The terms of the training data may matter. The code of litevae is '
        "Apache-2.0."
    ]


def _class_name(model: Any) -> str:
    """The class that loads the model."""
    if "teacher_class" in _config(model):
        return "HybridAutoencoder"
    return "LiteVAE" if hasattr(model, "architecture") else "StableDiffusionVAE"


def _teacher(model: Any) -> str:
    config = _config(model)
    name = f" ({public_name(config.teacher)})" if config.teacher else ""
    return f"its teacher, an {config.teacher_class}{name}"


def _config(model: Any) -> Any:
    return getattr(model, "vae", model).config


def _list(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(_cell, line))} |" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
