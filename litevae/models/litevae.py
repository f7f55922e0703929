"""LiteVAE, the whole autoencoder: encoder, posterior, decoder. Read this file first.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from litevae.checks import compute_dtype, in_dtype_of
from litevae.config import (
    Aggregation,
    EncoderType,
    Extraction,
    LiteVAEConfig,
    Normalization,
    OutputType,
    preset,
)
from litevae.models import pretrained
from litevae.models.blocks import recompute
from litevae.models.decoder import Decoder
from litevae.models.encoder import build_encoder
from litevae.models.latent import DiagonalGaussian
from litevae.models.publishing import Publishing
from litevae.models.serving import Serving
from litevae.models.strict_loading import StrictLoading
from litevae_kernels import haar_idwt2d

_UNSET = cast(Any, None)  # accelerate rebuilds an output from a dict, so the fields after the first need a default


@dataclass
class LiteVAEOutput(BaseOutput):
    """What `LiteVAE.forward` returns.

    sample: the reconstruction [B, out_channels, H, W]. wavelet: with `output_type="wavelet"` the decoder's output, the
    level-1 sub-bands of `sample` as `haar_dwt2d(sample, scaling="mean")` gives them (half of what its default gives),
    packed L H V D, [B, 4 * out_channels, H/2, W/2]; else None. latent_dist: the posterior. latent: its mode or the
    sample, which was decoded.
    """

    sample: Tensor
    wavelet: Tensor | None = None
    latent_dist: DiagonalGaussian = _UNSET
    latent: Tensor = _UNSET


class LiteVAE(  # type: ignore[misc]
    Publishing, Serving, StrictLoading, ModelMixin, AttentionMixin, AutoencoderMixin, ConfigMixin, PeftAdapterMixin
):
    """The wavelet-based autoencoder of arXiv 2405.14477, to be used wherever diffusers expects an AutoencoderKL.

    The arguments are the fields of `LiteVAEConfig`, which documents and checks them; `from_preset` makes the paper's
    sizes; `Serving` (serving.py) adds slices of a batch and models for inference alone. Images are [B, 3, H, W],
    floating point in [-1, 1] or uint8, H and W multiples of `downsampling`, which is 8 but for other `wavelet_levels`;
    latents are [B, C, H/8, W/8] then. `encoder` and `decoder` are ordinary modules. Floating-point images and latents
    are cast to the dtype of the model, which is that of the results, unless autocast is on. Another image or latent is
    a TypeError or ValueError, which says how to make it one of these. The 3x3 weights in `state_dict()` are contiguous
    copies in NCHW: what is written into them (by an average of weights that is kept by
    `state_dict()[name].copy_(...)`, say) does not change the model; `parameters()` do.

    >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16))
    >>> image = torch.rand(1, 3, 64, 48) * 2 - 1
    >>> posterior = model.encode(image).latent_dist
    >>> posterior.mean.shape
    torch.Size([1, 4, 8, 6])
    >>> model.decode(posterior.sample()).sample.shape
    torch.Size([1, 3, 64, 48])
    """

    _saved_as = "LiteVAE"
    _no_split_modules: Any = ("ResBlock", "NAFBlock", "TransformerBlock", "SelfAttention")
    _supports_gradient_checkpointing = True
    _group_offload_block_modules = ("quant_conv", "post_quant_conv", "encoder", "decoder")

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        encoder_type: EncoderType = "learned",
        wavelet_levels: tuple[int, ...] = (1, 2, 3),
        extraction: Extraction = "unet",
        shared_extraction: bool = False,
        extraction_channels: int = 32,
        extraction_multipliers: tuple[int, ...] = (1, 2, 3),
        nafnet_width: int = 128,
        nafnet_blocks: int = 14,
        aggregation: Aggregation = "unet",
        aggregation_channels: int = 32,
        aggregation_multipliers: tuple[int, ...] = (1, 2, 3),
        vit_width: int = 128,
        vit_depth: int = 4,
        vit_heads: int = 4,
        encoder_normalization: Normalization = "group_norm",
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        decoder_normalization: Normalization = "group_norm",
        decoder_outer_norm: bool | None = None,
        mid_block_add_attention: bool = True,
        output_type: OutputType = "image",
        use_quant_conv: bool = False,
        dropout: float = 0.0,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        force_upcast: bool = False,
        latent_channel_means: tuple[float, ...] | None = None,
        latent_channel_stds: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        config = self.architecture
        self.latent_channels, self.output_type = config.latent_channels, config.output_type
        self.downsampling, self.is_deterministic = config.downsampling, config.is_deterministic
        self.encoder = build_encoder(config)
        self.decoder = Decoder(config)
        moments = 2 * latent_channels
        self.quant_conv = nn.Conv2d(moments, moments, 1) if use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1) if use_quant_conv else None
        cast(Any, self).to(memory_format=torch.channels_last)
        self.register_state_dict_post_hook(pretrained.make_contiguous)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> LiteVAE:
        """A new model of the paper's size "S", "B", "M" or "L"; `overrides` are arguments of `LiteVAEConfig`.

        Raises:
            TypeError, ValueError: no such size or argument, or a value it cannot have.

        >>> sum(p.numel() for p in LiteVAE.from_preset("B").encoder.parameters())
        6753252
        """
        return cls(**dataclasses.asdict(preset(name, **overrides)))

    @property
    def architecture(self) -> LiteVAEConfig:
        """The arguments of this model: `config` without what diffusers adds to it."""
        names = [field.name for field in dataclasses.fields(LiteVAEConfig)]
        return LiteVAEConfig(**{name: self.config[name] for name in names})

    @property
    def last_layer(self) -> Tensor:
        """The weight of the decoder's last convolution, where Eq. (2) compares the losses' gradients."""
        return self.decoder.conv_out.weight

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussian]:
        """The posterior of an image's latent (section 4.1).

        Args:
            x: image [B, in_channels, H, W], floating point in [-1, 1] or uint8; `downsampling` divides H and W.

        Returns:
            AutoencoderKLOutput with `latent_dist`, a `DiagonalGaussian`; with `return_dict=False` a tuple of it.
        """
        posterior = self._encode(x)
        return AutoencoderKLOutput(latent_dist=cast(Any, posterior)) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """The image of a latent.

        Args:
            z: latent [B, latent_channels, h, w], floating point, as `encode` gives it: `scaling_factor` undone.
            generator: ignored, for the pipelines that pass one.

        Returns:
            DecoderOutput with `sample`, the image [B, out_channels, 8h, 8w] (`downsampling` times h and w) in
            channels_last, not clamped to [-1, 1]; with `return_dict=False` a tuple of it.
        """
        image, _ = self._decode(z)
        return DecoderOutput(sample=image) if return_dict else (image,)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> LiteVAEOutput | tuple[Tensor, Tensor | None, DiagonalGaussian, Tensor]:
        """Encode and decode an image, with all that the losses read.

        Args:
            sample: image [B, in_channels, H, W], floating point in [-1, 1] or uint8; `downsampling` divides H and W.
            sample_posterior: decode a sample of the posterior, instead of its mode.
            generator: the source of the sample's noise, one for the batch or a list with one for each image.

        Returns:
            LiteVAEOutput; with `return_dict=False` the tuple of its fields.
        """
        posterior = self._encode(sample)
        latent = posterior.sample(generator) if sample_posterior else posterior.mode()  # [B, C, H/8, W/8]
        image, wavelet = self._decode(latent)
        if not return_dict:
            return image, wavelet, posterior, latent
        return LiteVAEOutput(sample=image, wavelet=wavelet, latent_dist=posterior, latent=latent)

    def _encode(self, image: Tensor) -> DiagonalGaussian:
        moments = self._run(self.encoder, image)  # [B, 2C, H/8, W/8]
        if self.is_deterministic and image.dtype == torch.uint8:
            moments = moments.to(compute_dtype(self))  # such an encoder has no parameters that have a dtype
        moments = moments if self.quant_conv is None else self.quant_conv(moments)
        return DiagonalGaussian(moments.contiguous(), deterministic=self.is_deterministic)

    def _decode(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """The image, and the sub-bands it was made from if the decoder gives these."""
        if self.post_quant_conv is not None:
            self.decoder.check(latent)
            latent = self.post_quant_conv(in_dtype_of(self, latent))
        decoded = self._run(self.decoder, latent)  # the image, or [B, 4 * out_channels, H/2, W/2]
        if self.output_type == "image":
            return decoded, None
        return haar_idwt2d(decoded, scaling="mean"), decoded

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable[..., Any] | None = None) -> None:
        """Train in less memory: the backward pass computes the activations of ResBlocks and upsamplings again.

        The same gradients, on a CPU bit for bit. At 256x256 size B then holds at most 0.40 of the bytes.

        Args:
            gradient_checkpointing_func: called with a block and its inputs in place of torch.utils.checkpoint.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16))
        >>> model.enable_gradient_checkpointing()
        """
        super().enable_gradient_checkpointing(gradient_checkpointing_func or recompute)

    @property
    def _diffusers_model(self) -> Any:
        return self

    def _save_as_diffusers(self, folder: Path, options: Mapping[str, Any]) -> None:
        ModelMixin.save_pretrained(cast(Any, self), folder, **options)

    @classmethod
    def from_single_file(cls, *args: Any, **options: Any) -> Any:
        """Refused: one file of weights does not say which LiteVAE it is."""
        raise NotImplementedError(
            "a LiteVAE needs its config.json beside its weights: pass the folder to LiteVAE.from_pretrained, "
            "or make the model by LiteVAE.from_preset and load the file with model.load_state_dict"
        )
