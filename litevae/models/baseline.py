"""The baseline: Stable Diffusion's autoencoder, diffusers' own, with LiteVAE's forward and output.

image -> [encoder -> latent -> decoder] -> losses   (no DWT)
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.autoencoders.vae import Encoder as DiffusersEncoder
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn

from litevae.checks import check_image, check_latent, in_dtype_of
from litevae.config import LiteVAEConfig, check_widths
from litevae.models import pretrained, publishing
from litevae.models.blocks import group_count, recompute
from litevae.models.latent import DiagonalGaussian
from litevae.models.litevae import LiteVAEOutput
from litevae.models.publishing import Publishing
from litevae.pixels import to_float
from litevae_kernels.checks import checked_ints

SD_VAE_CHANNELS = (128, 256, 512, 512)
# The paper gives VAE-Small's 6.75 M encoder parameters (Table 2b), not its widths. These are near SD's 1 : 2 : 4 : 4,
# in multiples of its 32 groups: 6,793,104 with the 1x1 convolution after the encoder, 0.6 % more than LiteVAE-B's.
VAE_SMALL_CHANNELS = (64, 128, 224, 224)


class StableDiffusionVAE(Publishing):
    """The baseline of the paper's tables, to be trained and evaluated in LiteVAE's place.

    `vae` is diffusers' AutoencoderKL and does the work, in NCHW as diffusers does, or in channels_last after
    `.to(memory_format=torch.channels_last)`. Its posterior is LiteVAE's `DiagonalGaussian`: noise, KL and float32
    arithmetic are the same for both. Images are [B, 3, H, W], floating point in [-1, 1] or uint8, H and W multiples
    of 8; latents are [B, C, H/8, W/8] (a loaded model may have another factor, `downsampling`). Others are a TypeError
    or ValueError, as of LiteVAE.

    >>> model = StableDiffusionVAE.from_architecture(block_out_channels=(16, 16, 16, 16))
    >>> output = model(torch.rand(1, 3, 32, 16) * 2 - 1, sample_posterior=True)
    >>> output.sample.shape, output.latent.shape
    (torch.Size([1, 3, 32, 16]), torch.Size([1, 4, 4, 2]))
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = cast(Any, vae)
        self.latent_channels: int = self.vae.config.latent_channels
        self.downsampling: int = 2 ** (len(self.vae.config.block_out_channels) - 1)

    @classmethod
    def from_architecture(
        cls,
        latent_channels: int = 4,
        block_out_channels: Sequence[int] = SD_VAE_CHANNELS,
        layers_per_block: int = 2,
        encoder_channels: Sequence[int] | None = None,
        use_quant_conv: bool = True,
        scaling_factor: float = 1.0,
    ) -> StableDiffusionVAE:
        """A new model; the defaults are Stable Diffusion's autoencoder.

        Args:
            encoder_channels: four widths of the encoder where they are not the decoder's `block_out_channels`:
                `VAE_SMALL_CHANNELS` makes Table 2b's VAE-Small. None: the same.
            use_quant_conv: 1x1 convolutions after the encoder and before the decoder.

        The others as in `LiteVAEConfig`. Normalisation has 32 groups, as in Stable Diffusion, where 32 divides all
        widths; else the most below that do.

        Raises:
            TypeError, ValueError: an argument of the wrong kind, or out of its range.

        >>> with torch.device("meta"):
        ...     small = StableDiffusionVAE.from_architecture(encoder_channels=VAE_SMALL_CHANNELS)
        >>> sum(p.numel() for part in (small.encoder, small.quant_conv) for p in part.parameters())
        6793104
        """
        config = LiteVAEConfig(
            latent_channels=latent_channels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            use_quant_conv=use_quant_conv,
            scaling_factor=scaling_factor,
        )
        vae: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=config.block_out_channels,
            norm_num_groups=group_count(math.gcd(*config.block_out_channels)),
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            use_quant_conv=use_quant_conv,
            use_post_quant_conv=use_quant_conv,
            sample_size=256,
            scaling_factor=scaling_factor,
            force_upcast=False,
        )
        return cls(vae if encoder_channels is None else _with_encoder(vae, tuple(encoder_channels)))

    @property
    def encoder(self) -> nn.Module:
        return self.vae.encoder

    @property
    def decoder(self) -> nn.Module:
        return self.vae.decoder

    @property
    def quant_conv(self) -> nn.Conv2d | None:
        return self.vae.quant_conv

    @property
    def post_quant_conv(self) -> nn.Conv2d | None:
        return self.vae.post_quant_conv

    @property
    def last_layer(self) -> Tensor:
        """The weight of the decoder's last convolution, where Eq. (2) compares the losses' gradients."""
        return self.vae.decoder.conv_out.weight

    @property
    def device(self) -> torch.device:
        return self.vae.device

    @property
    def dtype(self) -> torch.dtype:
        return self.vae.dtype

    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """The posterior of an image's latent, as `latent_dist`.

        Args:
            x: image [B, 3, H, W], floating point in [-1, 1] or uint8; H and W multiples of 8.
        """
        return AutoencoderKLOutput(latent_dist=cast(Any, self._posterior(x)))

    def decode(self, z: Tensor) -> DecoderOutput:
        """The image [B, 3, 8h, 8w], not clamped, of a latent [B, latent_channels, h, w], as `sample`."""
        check_latent(z, self.latent_channels)
        return self.vae.decode(in_dtype_of(self.vae, z))

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> LiteVAEOutput:
        """As `LiteVAE.forward`: encode and decode an image, with all that the losses read.

        Args:
            sample: image [B, 3, H, W], floating point in [-1, 1] or uint8; H and W multiples of 8.
            sample_posterior: decode a sample of the posterior, instead of its mode.
            generator: the source of the sample's noise, one for the batch or a list with one for each image.
        """
        posterior = self._posterior(sample)
        latent = posterior.sample(generator) if sample_posterior else posterior.mode()  # [B, C, H/8, W/8]
        image = self.vae.decode(latent).sample
        return LiteVAEOutput(sample=image, latent_dist=posterior, latent=latent)

    def _posterior(self, image: Tensor) -> DiagonalGaussian:
        check_image(image, self.vae.config.in_channels, self.downsampling)
        if image.dtype == torch.uint8:
            image = to_float(image, self.dtype)
        moments = self.vae.encoder(in_dtype_of(self.vae, image))
        moments = moments if self.quant_conv is None else self.quant_conv(moments)
        return DiagonalGaussian(moments)

    def enable_gradient_checkpointing(self) -> None:
        """Compute the activations of whole resolutions again in the backward pass, as diffusers does it."""
        self.vae.enable_gradient_checkpointing(recompute)

    def disable_gradient_checkpointing(self) -> None:
        self.vae.disable_gradient_checkpointing()

    @property
    def _diffusers_model(self) -> Any:
        return self.vae

    def _save_as_diffusers(self, folder: Path, options: Mapping[str, Any]) -> None:
        """`AutoencoderKL.from_pretrained` reads it too, unless the encoder has widths of its own."""
        self.vae.save_pretrained(folder, **options)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **options: Any) -> StableDiffusionVAE:
        """The model that `save_pretrained`, or diffusers, wrote: a folder or a name on the Hub, diffusers' `options`.

        Raises:
            FileNotFoundError: no such folder, or no config.json or weights in it.
            ValueError: a model of another class, or weights that are cut off or do not fit it.
        """
        name = os.path.expanduser(path)
        pretrained.check_before_loading(_Loader, name, options)
        vae, info = cast(Any, _Loader.from_pretrained(name, output_loading_info=True, **options))
        pretrained.check_after_loading(name, info)
        model = cls(vae)
        publishing.remember_folder(model, name, options)
        return model


class _Loader(AutoencoderKL):
    """Makes an AutoencoderKL from its config, with the encoder that the config may name beside it."""

    @classmethod
    def from_config(cls, config: Any = None, **options: Any) -> Any:
        config = dict(config)
        saved_class = config.get("_class_name", "AutoencoderKL")
        if saved_class != "AutoencoderKL":
            raise ValueError(
                f"config must be that of an AutoencoderKL, got one of {saved_class}; "
                f"load it with {saved_class}.from_pretrained"
            )
        channels = config.pop("encoder_channels", None)
        vae: Any = AutoencoderKL.from_config(config, **options)
        return vae if channels is None else _with_encoder(vae, tuple(channels))


def _with_encoder(vae: Any, channels: tuple[int, ...]) -> Any:
    """`vae` with a new encoder of these widths in place of its own, and a config that says so."""
    check_widths("encoder_channels", checked_ints("encoder_channels", channels, at_least=1))
    config = vae.config
    vae.encoder = DiffusersEncoder(
        config.in_channels,
        config.latent_channels,
        down_block_types=config.down_block_types,
        block_out_channels=channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=group_count(math.gcd(*channels)),
    )
    vae.register_to_config(encoder_channels=channels)
    return vae
