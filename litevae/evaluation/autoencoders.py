"""Any autoencoder as an evaluation sees it: images to a posterior, latents to images, and the rules of its input.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> metrics
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.cost import parameter_count
from litevae.models.baseline import StableDiffusionVAE
from litevae.seeds import derive_seed
from litevae_kernels.checks import wrong_value

# The names of the baseline, each with its factor
BICUBIC = {"bicubic": 8, "bicubic-4x": 4, "bicubic-16x": 16}


@dataclass(frozen=True)
class Posterior:
    """The Gaussian of a latent, element by element."""

    mean: Tensor
    """float32 [B, C, h, w]"""
    std: Tensor
    """The same shape; 0 where the encoder is deterministic."""

    def sample(self, seed: int, indices: tuple[int, ...]) -> Tensor:
        """mean + std * noise, [B, C, h, w]; the noise of image `index` is a function of (seed, index)."""
        noise = [
            torch.randn(
                self.mean.shape[1:], generator=torch.Generator().manual_seed(derive_seed(seed, "latent", index))
            )
            for index in indices
        ]
        return self.mean + self.std * torch.stack(noise).to(self.mean)


class EvaluatedAutoencoder:
    """An autoencoder behind one interface, in eval mode and without gradients.

    It may be a LiteVAE, a StableDiffusionVAE or any of diffusers' autoencoders of images, whose `encode` returns a
    `latent_dist`, `latents` or `latent`. They all take images in [-1, 1]; latents are the model's own, without its
    scaling_factor. diffusers' AutoencoderTiny rounds latents to 8 bits in its forward pass; here it does not.

    Args:
        model: it stays where it is; half precision is cast to and from.
        label: what tables and figures call it.

    Raises:
        ValueError: it does not take RGB images, or is of another kind.
    """

    def __init__(self, model: nn.Module, label: str) -> None:
        self.model, self.label = cast(Any, model.eval()), label
        channels = config_of(model).get("in_channels", 3)
        if channels != 3:
            raise wrong_value("MODEL", "take RGB images (in_channels=3)", f"{label} with in_channels={channels}")
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        rule = f"encode and decode images [B, 3, {_PROBE}, {_PROBE}]"
        try:
            latents = self.encode(torch.zeros(1, 3, _PROBE, _PROBE, device=self.device)).mean
            decoded = self.decode(latents)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            what = f"{label}, a {_class_name(model)} that fails: {' '.join(str(error).split())[:200]}"
            raise wrong_value("MODEL", rule, what) from error
        if decoded.shape != (1, 3, _PROBE, _PROBE):
            raise wrong_value("MODEL", rule, f"{label}, which makes {list(decoded.shape)} of one")
        self.latent_channels, self.downsampling = latents.shape[1], _PROBE // latents.shape[-1]

    @torch.no_grad()
    def encode(self, images: Tensor) -> Posterior:
        """The posterior of images [B, 3, H, W], float32 in [-1, 1]; `downsampling` must divide H and W."""
        output = self.model.encode(images.to(self.dtype))
        if hasattr(output, "latent_dist"):
            return Posterior(output.latent_dist.mean.float(), output.latent_dist.std.float())
        mean = (output.latents if hasattr(output, "latents") else output.latent).float()
        return Posterior(mean, torch.zeros_like(mean))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents [B, C, h, w]: float32 [B, 3, H, W], clamped to [-1, 1]."""
        images: Tensor = self.model.decode(latents.to(self.dtype)).sample
        return images.float().clamp(-1, 1)

    def describe(self) -> dict[str, Any]:
        """What results.json says of it."""
        encoder, decoder = (_parameters(self.model, part) for part in ("encoder", "decoder"))
        return {
            "label": self.label,
            "class": _class_name(self.model),
            "encoder_parameters": encoder,
            **aggregation_parameters(self.model),
            "decoder_parameters": decoder,
            "latent_channels": self.latent_channels,
            "downsampling": self.downsampling,
            "dtype": str(self.dtype).removeprefix("torch."),
            "scaling_factor": config_of(self.model).get("scaling_factor"),
        }


class BicubicBaseline:
    """The baseline without learning: downsample (bicubic, antialiased), then upsample as much (bicubic).

    By 8 it keeps three numbers for each 8x8 block, where a LiteVAE latent at H/8 keeps `latent_channels`: the baseline
    of a model has the model's factor.
    """

    def __init__(self, device: torch.device, label: str = "bicubic", downsampling: int = 8) -> None:
        self.device, self.label, self.downsampling = device, label, downsampling
        self.name = f"{downsampling}x down, bicubic up"

    def reconstruct(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W] in [-1, 1], of images of that kind with sides that `downsampling` divides."""
        small = F.interpolate(images, scale_factor=1 / self.downsampling, mode="bicubic", antialias=True)
        return F.interpolate(small, size=images.shape[-2:], mode="bicubic").clamp(-1, 1)

    def describe(self) -> dict[str, Any]:
        """What results.json says of it."""
        return {
            "label": self.label,
            "class": self.name,
            "downsampling": self.downsampling,
            "dtype": "float32",
            "weights": None,
        }


_PROBE = 128  # the largest factor of downsampling that an image autoencoder of diffusers has


def check_size(model: EvaluatedAutoencoder | BicubicBaseline, size: int) -> None:
    """Raise a ValueError for images that the model cannot take."""
    if size % model.downsampling:
        rule = f"be a multiple of {model.downsampling} for {model.label}"
        near = max(1, round(size / model.downsampling)) * model.downsampling
        raise wrong_value("--sizes", rule, size, f"try {near}")


def batch_size(size: int, device: torch.device) -> int:
    """So many images of 256x256 at once: 16 on a GPU, 4 on a CPU; more of smaller ones."""
    images = (16 if device.type == "cuda" else 4) * 256**2 // size**2
    return max(1, min(64, images))


def aggregation_parameters(model: nn.Module) -> dict[str, int]:
    """{"aggregation_parameters": how many}, those of the encoder that merge wavelet levels; {} where nothing does."""
    aggregation = getattr(getattr(model, "encoder", None), "aggregation", None)
    return {} if aggregation is None else {"aggregation_parameters": parameter_count(aggregation)}


def _class_name(model: nn.Module) -> str:
    return "AutoencoderKL" if isinstance(model, StableDiffusionVAE) else type(model).__name__


def diffusers_model(model: nn.Module) -> Any:
    """The model of diffusers that has the config and the 1x1 convolutions: the one that a baseline wraps, or itself."""
    return model.vae if isinstance(model, StableDiffusionVAE) else model


def config_of(model: nn.Module) -> Any:
    """The config of an autoencoder; {} where it has none."""
    return getattr(diffusers_model(model), "config", {})


def _parameters(model: nn.Module, part: str) -> int:
    """Of the encoder or decoder, with the 1x1 convolution between it and the latent."""
    convolution = "quant_conv" if part == "encoder" else "post_quant_conv"
    return parameter_count(*(getattr(model, name, None) for name in (part, convolution)))
