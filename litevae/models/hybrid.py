"""A LiteVAE encoder for latents that people already use: in front of the decoder of a diffusers autoencoder.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, FrozenDict, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.autoencoders.vae import AutoencoderMixin, Decoder, DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from litevae.checks import check_latent, in_dtype_of
from litevae.config import LiteVAEConfig, preset
from litevae.models import pretrained
from litevae.models.blocks import recompute
from litevae.models.encoder import build_encoder
from litevae.models.latent import DiagonalGaussian
from litevae.models.litevae import LiteVAEOutput
from litevae.models.publishing import Publishing
from litevae.models.strict_loading import StrictLoading
from litevae.models.teacher import (
    ENCODER_FIELDS,
    TEACHER_CLASSES,
    check_config_names,
    check_teacher,
    decoder_names,
    student_architecture,
    teacher_class_name,
)
from litevae_kernels.checks import check_choice

_UP_BLOCKS = ("UpDecoderBlock2D",) * 4
_KL = TEACHER_CLASSES["AutoencoderKL"]


class HybridAutoencoder(  # type: ignore[misc]
    Publishing, StrictLoading, ModelMixin, AttentionMixin, AutoencoderMixin, ConfigMixin, PeftAdapterMixin
):
    """LiteVAE's encoder and a teacher's decoder: a drop-in `vae` for the pipelines of that teacher.

    `from_teacher` makes one. `encoder` is LiteVAE's, and `quant_conv` with it; `decoder`, `post_quant_conv` and, of
    FLUX.2, `bn` are the teacher's, under the teacher's names. `config` has what pipelines read of the teacher's:
    `scaling_factor`, `shift_factor`, `latents_mean`, `force_upcast` and the like; what an argument means stands in the
    teacher's class. Images are [B, in_channels, H, W], floating point in [-1, 1] or uint8, H and W multiples of 8;
    latents are [B, latent_channels, H/8, W/8] at the teacher's scale. `encode` and `decode` cast floating-point
    tensors to the dtype of the model.

    Args:
        student: the fields of `LiteVAEConfig` that make the encoder (`ENCODER_FIELDS`); others keep their default.
        teacher, teacher_subfolder: where the teacher was loaded from, for `litevae.evaluate`; None: not known.
        teacher_class: "AutoencoderKL" or "AutoencoderKLFlux2".

    Raises:
        TypeError, ValueError: a student or teacher that cannot be.

    >>> from diffusers import AutoencoderKL
    >>> blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    >>> teacher = AutoencoderKL(**blocks, block_out_channels=(8, 8, 8, 8), norm_num_groups=8)
    >>> vae = HybridAutoencoder.from_teacher(teacher, "S")
    >>> latent = vae.encode(torch.rand(1, 3, 64, 48) * 2 - 1).latent_dist.mode()
    >>> torch.equal(vae.decode(latent).sample, teacher.decode(latent).sample)
    True
    """

    _saved_as = "HybridAutoencoder"
    _check_names = staticmethod(check_config_names)
    _no_split_modules: Any = ("ResBlock", "NAFBlock", "TransformerBlock", "ResnetBlock2D")
    _supports_gradient_checkpointing = True
    _group_offload_block_modules = ("quant_conv", "post_quant_conv", "encoder", "decoder")

    @register_to_config
    def __init__(
        self,
        student: Mapping[str, Any] | None = None,
        teacher: str | None = None,
        teacher_subfolder: str | None = None,
        teacher_class: str = "AutoencoderKL",
        in_channels: int = 3,
        out_channels: int = 3,
        up_block_types: tuple[str, ...] = _UP_BLOCKS,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        decoder_block_out_channels: tuple[int, ...] | None = None,
        layers_per_block: int = 2,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 512,
        scaling_factor: float = 0.18215,
        shift_factor: float | None = None,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        force_upcast: bool = True,
        use_post_quant_conv: bool = True,
        mid_block_add_attention: bool = True,
        batch_norm_eps: float = 1e-4,
        batch_norm_momentum: float = 0.1,
        patch_size: tuple[int, int] = (2, 2),
    ) -> None:
        super().__init__()
        check_choice("teacher_class", teacher_class, TEACHER_CLASSES)
        own = ("student", "teacher", "teacher_subfolder", "teacher_class", *decoder_names(teacher_class))
        kept = {name: value for name, value in self.config.items() if name in own or name.startswith("_")}
        cast(Any, self)._internal_dict = FrozenDict(kept)  # a pipeline may ask whether the config has a name
        self.latent_channels, self.downsampling, self.is_deterministic = latent_channels, 8, False
        architecture = self.architecture
        self.encoder = build_encoder(architecture)
        moments = 2 * latent_channels
        self.quant_conv = nn.Conv2d(moments, moments, 1) if architecture.use_quant_conv else None
        self.decoder = Decoder(
            in_channels=latent_channels,
            out_channels=out_channels,
            up_block_types=cast(Any, tuple(up_block_types)),
            block_out_channels=cast(Any, tuple(decoder_block_out_channels or block_out_channels)),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            act_fn=act_fn,
            mid_block_add_attention=mid_block_add_attention,
        )
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1) if use_post_quant_conv else None
        if teacher_class == "AutoencoderKLFlux2":
            channels = math.prod(patch_size) * latent_channels
            self.bn = nn.BatchNorm2d(channels, batch_norm_eps, batch_norm_momentum, affine=False)
        self.use_slicing = self.use_tiling = False
        side = sample_size if isinstance(sample_size, int) else sample_size[0]
        self.tile_sample_min_size, self.tile_latent_min_size, self.tile_overlap_factor = side, side // 8, 0.25
        self.register_state_dict_post_hook(pretrained.make_contiguous)

    @classmethod
    def from_teacher(
        cls,
        teacher: Any,
        size: str | LiteVAEConfig = "B",
        *,
        name: str | None = None,
        subfolder: str | None = None,
        **fields: Any,
    ) -> HybridAutoencoder:
        """A new encoder in front of a copy of the teacher's decoder, in the dtype and on the device of that.

        Args:
            teacher: an AutoencoderKL or AutoencoderKLFlux2 of diffusers, or a StableDiffusionVAE (`check_teacher`).
            size: the encoder's: "S", "B", "M", "L", or a LiteVAEConfig, of which `ENCODER_FIELDS` count.
            name, subfolder: where the teacher is, for `config.teacher`; None: where diffusers loaded it from.
            fields: `ENCODER_FIELDS` that differ from the size's.

        Raises:
            TypeError, ValueError: no such teacher, or no such student.
        """
        vae = check_teacher(teacher)
        base = size if isinstance(size, LiteVAEConfig) else preset(size)
        fields = {name: getattr(base, name) for name in ENCODER_FIELDS} | fields
        name = name or vae.config.get("_name_or_path") or None
        student = student_architecture(fields, vae.config.in_channels, vae.config.latent_channels)
        class_name = teacher_class_name(vae)
        model = cls(
            student={name: getattr(student, name) for name in ENCODER_FIELDS},
            teacher=os.path.abspath(name) if name is not None and os.path.isdir(name) else name,
            teacher_subfolder=subfolder,
            teacher_class=class_name,
            **{name: vae.config[name] for name in decoder_names(class_name) if name in vae.config},
        )
        for part in ("decoder", "post_quant_conv", "bn"):
            if getattr(vae, part, None) is not None:
                setattr(model, part, copy.deepcopy(getattr(vae, part)))
        weight = next(vae.decoder.parameters())
        return cast(Any, nn.Module.to(model, weight.device, weight.dtype).train(vae.training))

    @property
    def architecture(self) -> LiteVAEConfig:
        """The arguments of the LiteVAE that the encoder is of; those of a decoder mean nothing here."""
        config: Any = self.config
        return student_architecture(config.student or {}, config.in_channels, config.latent_channels)

    @property
    def last_layer(self) -> Tensor:
        """The weight of the decoder's last convolution."""
        return self.decoder.conv_out.weight

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that `encode` uses: of `encoder` and `quant_conv`."""
        return _parameters(self.encoder, self.quant_conv)

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that `decode` uses: of `decoder` and `post_quant_conv`."""
        return _parameters(self.decoder, self.post_quant_conv)

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussian]:
        """The posterior of an image's latent, at the teacher's scale.

        Args:
            x: image [B, in_channels, H, W], floating point in [-1, 1] or uint8; 8 divides H and W.

        Returns:
            AutoencoderKLOutput with `latent_dist`, a `DiagonalGaussian`; with `return_dict=False` a tuple of it.
        """
        x = in_dtype_of(self, x)
        self.encoder.check(x)
        parts = x.split(1) if self.use_slicing and len(x) > 1 else (x,)
        moments = torch.cat([self.encoder(part) for part in parts])  # [B, 2C, H/8, W/8]
        moments = moments if self.quant_conv is None else self.quant_conv(moments)
        posterior = DiagonalGaussian(moments.contiguous())
        return AutoencoderKLOutput(latent_dist=cast(Any, posterior)) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """The image of a latent, as the teacher decodes it.

        Args:
            z: latent [B, latent_channels, h, w], floating point, as `encode` gives it: `scaling_factor` undone.
            generator: ignored, for the pipelines that pass one.

        Returns:
            DecoderOutput with `sample`, the image [B, out_channels, 8h, 8w], not clamped to [-1, 1]; with
            `return_dict=False` a tuple of it.
        """
        check_latent(z, self.latent_channels)
        z = in_dtype_of(self, z)
        parts = z.split(1) if self.use_slicing and len(z) > 1 else (z,)
        image = torch.cat([self._decode(part) for part in parts])
        return DecoderOutput(sample=image) if return_dict else (image,)

    def _decode(self, latent: Tensor) -> Tensor:
        if self.use_tiling and max(latent.shape[-2:]) > self.tile_latent_min_size:
            return cast(Tensor, self.tiled_decode(latent).sample)
        latent = latent if self.post_quant_conv is None else self.post_quant_conv(latent)
        return cast(Tensor, self.decoder(latent))

    # Tiles that are blended, as the teacher's; the encoder, whose memory is small, works on the whole image.
    tiled_decode, blend_v, blend_h = _KL.tiled_decode, _KL.blend_v, _KL.blend_h

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> LiteVAEOutput | tuple[Tensor, None, DiagonalGaussian, Tensor]:
        """As `LiteVAE.forward`: encode and decode an image [B, in_channels, H, W]."""
        posterior = cast(Any, self.encode(sample)).latent_dist
        latent = posterior.sample(generator) if sample_posterior else posterior.mode()  # [B, C, H/8, W/8]
        image = cast(Any, self.decode(latent)).sample
        if not return_dict:
            return image, None, posterior, latent
        return LiteVAEOutput(sample=image, latent_dist=posterior, latent=latent)

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable[..., Any] | None = None) -> None:
        """Train in less memory: the backward pass computes the activations of blocks again."""
        super().enable_gradient_checkpointing(gradient_checkpointing_func or recompute)

    @property
    def _diffusers_model(self) -> Any:
        return self

    def _save_as_diffusers(self, folder: Path, options: Mapping[str, Any]) -> None:
        ModelMixin.save_pretrained(cast(Any, self), folder, **options)

    @property
    def _in_channels_last(self) -> nn.Module:
        return self.encoder


def _parameters(*parts: nn.Module | None) -> Iterator[nn.Parameter]:
    return (parameter for part in parts if part is not None for parameter in part.parameters())
