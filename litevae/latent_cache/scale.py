"""The scale of latents: from a cache into a model's config, and from there into its weights.

image -> DWT -> feature extraction -> aggregation -> [latent] -> decoder
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from litevae.evaluation.autoencoders import config_of, diffusers_model
from litevae.latent_cache.cache import LatentCache
from litevae.latent_cache.request import Fold, Stats
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.litevae import LiteVAE
from litevae.state_hash import state_hash
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import check_folder, replacing

Load = Callable[[str, str | None], nn.Module]
Autoencoder = LiteVAE | StableDiffusionVAE


def stats(request: Stats, load: Load) -> int:
    """Print the scale of a cache, and write it into a copy of its model; returns the exit code.

    Raises:
        CacheError, FileNotFoundError, ValueError: a wrong request.
    """
    cache = LatentCache(request.cache)
    if request.model is not None and request.output is not None:
        check_output(request.output)
        model = _checked(load(request.model, request.subfolder), request.model)
        cache.check_model(state_hash(model), request.model)
        write_scale(model, cache.index["statistics"], request.scalar)
        save(model, request.output)
    sys.stdout.write(table(cache))
    if request.output is not None:
        print(f"written   {request.output}, a copy of {request.model} with this scale")
    return 0


def fold(request: Fold, load: Load) -> int:
    """Write a copy of a model with the scale of its latents in its weights; returns the exit code.

    Raises:
        CacheError, FileNotFoundError, ValueError: a wrong request.
    """
    check_output(request.output)
    model = _checked(load(request.model, request.subfolder), request.model)
    if request.cache is not None:
        cache = LatentCache(request.cache)
        cache.check_model(state_hash(model), request.model)
        means, stds = (cache.index["statistics"][f"channel_{name}"] for name in ("means", "stds"))
    else:
        config = config_of(model)
        means, stds = config.get("latent_channel_means"), config.get("latent_channel_stds")
        if means is None or stds is None:
            rule = "be given for a model whose config has no latent_channel_means and latent_channel_stds"
            raise wrong_value("--cache", rule, None, "encode images with python -m litevae.latents first")
    fold_scale(model, means, stds)
    save(model, request.output)
    print(f"written   {request.output}, whose latents have mean 0 and standard deviation 1 in each channel")
    return 0


def write_scale(model: Autoencoder, statistics: dict[str, Any], scalar: bool) -> None:
    """Put the scale of samples of the posteriors into a model's config.

    `scaling_factor` is 1 / the standard deviation of all, without a shift, as LDM has it. Unless `scalar`, the mean and
    standard deviation of each channel stand beside it, for diffusion models that scale by channel.

    Raises:
        ValueError: an AutoencoderKL, which has no place for channels that every pipeline reads.
    """
    if not scalar and isinstance(model, StableDiffusionVAE):
        rule = "be given for an AutoencoderKL, whose config has no scale by channel that every pipeline reads"
        raise wrong_value("--scalar", rule, False, "or fold the scale into its weights: litevae.latents fold --cache")
    scale: dict[str, Any] = {"scaling_factor": statistics["scaling_factor"], "shift_factor": None}
    if isinstance(model, LiteVAE):
        for name in ("means", "stds"):
            scale[f"latent_channel_{name}"] = None if scalar else tuple(statistics[f"channel_{name}"])
    diffusers_model(model).register_to_config(**scale)


@torch.no_grad()
def fold_scale(model: Autoencoder, means: Sequence[float], stds: Sequence[float]) -> None:
    """Change a model's latents z to (z - mean) / std, channel by channel, in place; images stay what they were.

    The 1x1 convolution after the encoder divides and subtracts, that before the decoder multiplies and adds; a model
    without them gets both. Where only the decoder's first 3x3 convolution could take the mean, it would not be exact:
    that pads with zeros. `scaling_factor` becomes 1.

    Raises:
        ValueError: an encoder without parameters, or numbers that are not one positive std for each channel.
    """
    owner = diffusers_model(model)
    channels = int(config_of(model)["latent_channels"])
    if isinstance(model, LiteVAE) and model.is_deterministic:
        rule = "be 'learned' for 1x1 convolutions to take the scale"
        raise wrong_value("encoder_type", rule, model.config.encoder_type, "use its scaling_factor")
    if len(means) != channels or len(stds) != channels or not all(std > 0 for std in stds):
        raise wrong_value("stds", f"be {channels} numbers above 0, with as many means", (tuple(means), tuple(stds)))
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (means, stds))  # [C]
    for name, size in (("quant_conv", 2 * channels), ("post_quant_conv", channels)):
        if getattr(owner, name) is None:
            setattr(owner, name, _identity(size, next(model.parameters())))
    weight, bias = _parameters(owner.quant_conv)  # [2C, 2C], [2C]
    weight[:channels] /= std[:, None]
    bias[:channels] = (bias[:channels] - mean) / std
    bias[channels:] -= 2 * std.log()
    _write(owner.quant_conv, weight, bias)
    weight, bias = _parameters(owner.post_quant_conv)  # [C, C], [C]
    bias += weight @ mean
    weight *= std
    _write(owner.post_quant_conv, weight, bias)
    scale: dict[str, Any] = {"use_quant_conv": True, "scaling_factor": 1.0, "shift_factor": None}
    if isinstance(model, LiteVAE):
        scale |= {"latent_channel_means": (0.0,) * channels, "latent_channel_stds": (1.0,) * channels}
    else:
        scale |= {"use_post_quant_conv": True, "latents_mean": None, "latents_std": None}
    owner.register_to_config(**scale)


def table(cache: LatentCache) -> str:
    """The scale of a cache's latents and what storing them cost, as lines."""
    found, error = cache.index["statistics"], cache.index["storage_error"]
    rows = zip(found["channel_means"], found["channel_stds"], found["posterior_stds"], strict=True)
    lines = [
        f"{cache.folder}: {len(cache):,} images, latents {'x'.join(map(str, cache.shape))}, "
        f"of {cache.index['model']['name']}",
        "",
        f"{'channel':>8} {'mean':>10} {'std':>10} {'noise':>10}",
        *(f"{channel:>8} {mean:>10.4f} {std:>10.4f} {noise:>10.4f}" for channel, (mean, std, noise) in enumerate(rows)),
        f"{'all':>8} {found['mean']:>10.4f} {found['std']:>10.4f}",
        "",
        f"scaling_factor {found['scaling_factor']:.6g} (1 / std, LDM's)",
        f"stored as {cache.index['storage_dtype']}: the means have a relative error of {error['mean']:.1e}, the "
        f"log-variances one of {error['logvar']:.1e} (root mean square)",
    ]
    return "\n".join(lines) + "\n"


def check_output(output: Path) -> None:
    """ValueError unless a model can be written there, over nothing."""
    check_folder("--output", output)
    if output.exists() and any(output.iterdir()):
        raise wrong_value("--output", "name an empty folder", str(output), "name another")


def save(model: Autoencoder, output: Path) -> None:
    """`save_pretrained`, whole or not at all."""
    with replacing(output) as temporary:
        model.save_pretrained(temporary)


def _checked(model: nn.Module, name: str) -> Autoencoder:
    if not isinstance(model, LiteVAE | StableDiffusionVAE):
        raise wrong_value("MODEL", "be a LiteVAE or an AutoencoderKL", f"{name}, a {type(model).__name__}")
    return model


def _identity(size: int, like: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(size, size, 1, device=like.device, dtype=like.dtype)
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(cast(Tensor, layer.bias))
    return layer


def _parameters(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight.double().flatten(1).cpu().clone(), layer.bias.double().cpu().clone()


def _write(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    assert layer.bias is not None
    layer.weight.copy_(weight[:, :, None, None])
    layer.bias.copy_(bias)
