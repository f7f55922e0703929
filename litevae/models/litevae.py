"""What is LiteVAE? Read this file first: the whole autoencoder, as encoder, posterior and decoder.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from litevae.checks import check_image, check_latent
from litevae.config import DecoderNormalization, LiteVAEConfig, OutputType, check_names, preset
from litevae.models import pretrained, serving
from litevae.models.blocks import SMConv2d, compute_again
from litevae.models.decoder import Decoder
from litevae.models.encoder import Encoder
from litevae.models.latent import DiagonalGaussian
from litevae_kernels import haar_dwt2d, haar_idwt2d
from litevae_kernels.checks import wrong_value

_UNSET = cast(Any, None)  # accelerate rebuilds an output from a dict, so the fields after the first need a default


@dataclass
class LiteVAEOutput(BaseOutput):
    """What `LiteVAE.forward` returns.

    sample: the reconstruction [B, out_channels, H, W]. wavelet: its level-1 sub-bands divided by 2, packed L H V D,
    [B, 4 * out_channels, H/2, W/2]. latent_dist: the posterior. latent: its mode or the sample, which was decoded.
    """

    sample: Tensor
    wavelet: Tensor = _UNSET
    latent_dist: DiagonalGaussian = _UNSET
    latent: Tensor = _UNSET


class LiteVAE(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The wavelet-based autoencoder of arXiv 2405.14477, to be used wherever diffusers expects an AutoencoderKL.

    The arguments are the fields of `LiteVAEConfig`, which documents and checks them; `from_preset` makes the paper's
    sizes. Images are [B, 3, H, W], floating point in [-1, 1] or uint8, H and W multiples of 8; latents are
    [B, C, H/8, W/8]. `encoder` and `decoder` are ordinary modules. Results have the dtype of the model, or autocast's.

    >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16))
    >>> image = torch.rand(1, 3, 64, 48) * 2 - 1
    >>> posterior = model.encode(image).latent_dist
    >>> posterior.mean.shape
    torch.Size([1, 4, 8, 6])
    >>> model.decode(posterior.sample()).sample.shape
    torch.Size([1, 3, 64, 48])
    """

    _no_split_modules: Any = ("ResBlock", "SelfAttention")
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        extraction_channels: int = 32,
        extraction_multipliers: tuple[int, ...] = (1, 2, 3),
        aggregation_channels: int = 32,
        aggregation_multipliers: tuple[int, ...] = (1, 2, 3),
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        decoder_normalization: DecoderNormalization = "group_norm",
        decoder_outer_norm: bool | None = None,
        mid_block_add_attention: bool = True,
        output_type: OutputType = "image",
        use_quant_conv: bool = False,
        dropout: float = 0.0,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        config = self.architecture
        self.latent_channels, self.output_type = config.latent_channels, config.output_type
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        moments = 2 * latent_channels
        self.slicing: serving.Slicing | None = None
        self.copies_outputs = False  # CUDA graphs write every result to the same place
        self.quant_conv = nn.Conv2d(moments, moments, 1) if use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1) if use_quant_conv else None

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
        """`config`, without what diffusers adds to it, as a checked dataclass."""
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
            x: image [B, in_channels, H, W], floating point in [-1, 1] or uint8; H and W multiples of 8.

        Returns:
            AutoencoderKLOutput with `latent_dist`, a `DiagonalGaussian`; with `return_dict=False` a tuple of it.

        Raises:
            TypeError, ValueError: `x` is no such tensor; the message says how to make it one.
        """
        posterior = self._posterior(x)
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
            DecoderOutput with `sample`, the image [B, out_channels, 8h, 8w] in channels_last, not clamped to [-1, 1];
            with `return_dict=False` a tuple of it.

        Raises:
            TypeError, ValueError: `z` is no such tensor.
        """
        decoded = self._decoded(z)
        image = haar_idwt2d(decoded, scaling="mean") if self.output_type == "wavelet" else decoded
        return DecoderOutput(sample=image) if return_dict else (image,)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> LiteVAEOutput | tuple[Tensor, Tensor, DiagonalGaussian, Tensor]:
        """Encode and decode an image, with all that the losses read.

        Args:
            sample: image [B, in_channels, H, W], floating point in [-1, 1] or uint8; H and W multiples of 8.
            sample_posterior: decode a sample of the posterior, instead of its mode.
            generator: the source of the sample's noise, one for the batch or a list with one for each image.

        Returns:
            LiteVAEOutput; with `return_dict=False` the tuple of its fields.

        Raises:
            TypeError, ValueError: `sample` is no such tensor; the message says how to make it one.
        """
        posterior = self._posterior(sample)
        latent = posterior.sample(generator) if sample_posterior else posterior.mode()
        decoded = self._decoded(latent)
        if self.output_type == "wavelet":
            image, wavelet = haar_idwt2d(decoded, scaling="mean"), decoded
        else:
            image, wavelet = decoded, haar_dwt2d(decoded, 1, scaling="mean")[0]
        if not return_dict:
            return image, wavelet, posterior, latent
        return LiteVAEOutput(sample=image, wavelet=wavelet, latent_dist=posterior, latent=latent)

    def _posterior(self, image: Tensor) -> DiagonalGaussian:
        check_image(image, self.encoder.in_channels)
        moments = self._in_slices(self.encoder, Encoder, image)
        moments = moments if self.quant_conv is None else self.quant_conv(moments)
        return DiagonalGaussian(moments.contiguous())

    def _decoded(self, latent: Tensor) -> Tensor:
        check_latent(latent, self.latent_channels)
        latent = latent if self.post_quant_conv is None else self.post_quant_conv(latent)
        return self._in_slices(self.decoder, Decoder, latent)

    def _in_slices(self, part: nn.Module, kind: type[Encoder | Decoder], batch: Tensor) -> Tensor:
        slices: tuple[Tensor, ...] = (batch,)
        if self.slicing is not None:
            slices = self.slicing.slices(batch, kind, self.architecture, next(part.parameters()).dtype)
        results = [part(samples).clone() if self.copies_outputs else part(samples) for samples in slices]
        return results[0] if len(results) == 1 else torch.cat(results)

    def enable_slicing(self, slice_size: int | None = None, *, memory_budget: int | None = None) -> None:
        """Encode and decode a batch slice by slice, with the same result in less memory, until `disable_slicing`.

        Args:
            slice_size: samples at once; None, without a budget: 1, as in diffusers.
            memory_budget: bytes that the activations of one slice may take without gradients; the most samples that
                fit are taken at once, and at least 1. Parameters, the batch and twice its results come on top, and
                what an allocator rounds.

        Raises:
            TypeError, ValueError: no int, or less than 1, or both given.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16))
        >>> model.enable_slicing(memory_budget=2**30)
        """
        self.slicing = serving.Slicing(slice_size, memory_budget)

    def disable_slicing(self) -> None:
        """Encode and decode a batch at once again."""
        self.slicing = None

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable[..., Any] | None = None) -> None:
        """Train in less memory: ResBlocks and upsamplings are computed again in the backward pass, not remembered.

        The same gradients, on a CPU bit for bit. At 256x256 size B then holds at most 0.40 of the bytes.

        Args:
            gradient_checkpointing_func: called with a block and its inputs in place of torch.utils.checkpoint.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16))
        >>> model.enable_gradient_checkpointing()
        """
        super().enable_gradient_checkpointing(gradient_checkpointing_func or compute_again)

    def optimize_for_inference(
        self, dtype: torch.dtype | None = None, compile: bool = False, cuda_graph: bool = False
    ) -> LiteVAE:
        """A new model for inference alone: eval, without gradients, self-modulated convolutions folded.

        The result is that of this model, up to rounding. What costs nothing (channels_last, fused operators) `encode`
        and `decode` do anyway; the arguments ask for what changes precision, or takes time at the first call.

        Args:
            dtype: of the parameters; None keeps them. torch.bfloat16 halves the memory, is faster where the hardware
                multiplies it, and moves the latent by a few per cent of its norm (less than 5 % in the tests).
            compile: torch.compile encoder and decoder; the first call of an image size takes a minute or more.
            cuda_graph: compile, and replay the kernels recorded for an image size, which saves their launches: for
                small batches on a GPU.

        Raises:
            TypeError: dtype is no floating-point torch.dtype. ValueError: cuda_graph without a CUDA device.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16), decoder_normalization="smc")
        >>> fast = model.optimize_for_inference(dtype=torch.bfloat16)
        >>> fast.dtype, fast.config.decoder_normalization
        (torch.bfloat16, 'none')
        """
        return serving.optimized(self, dtype, compile, cuda_graph)

    def fold_smc(self) -> LiteVAE:
        """A new model with plain convolutions in place of the self-modulated ones, and the same output.

        Raises:
            ValueError: the decoder has none.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16), decoder_normalization="smc")
        >>> model.fold_smc().config.decoder_normalization
        'none'
        """
        config = self.architecture
        if config.decoder_normalization != "smc":
            rule = "be 'smc' for fold_smc() to have something to fold"
            raise wrong_value("decoder_normalization", rule, config.decoder_normalization)
        state = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        for name, module in self.named_modules():
            if isinstance(module, SMConv2d):
                state[f"{name}.weight"] = module.folded_weight().detach()
                del state[f"{name}.scales"], state[f"{name}.gain"]
        folded = dataclasses.replace(config, decoder_normalization="none", decoder_outer_norm=config.has_outer_norm)
        with torch.device("meta"):
            model = type(self)(**dataclasses.asdict(folded))
        model.load_state_dict(state, assign=True)
        model.slicing = self.slicing
        return model.train(self.training).to(memory_format=torch.channels_last)

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """diffusers' `from_config`, which here refuses what it would ignore with a warning.

        Raises:
            ValueError: the config of another class, or an argument that LiteVAE does not have.
        """
        if isinstance(config, dict):
            pretrained.check_config(config)
        check_names(kwargs.keys() - {"dtype"})
        return super().from_config(config, return_unused_kwargs, **kwargs)

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
        model, info = cast(Any, super().from_pretrained(path, output_loading_info=True, **kwargs))
        pretrained.check_after_loading(path, info)
        model.to(memory_format=torch.channels_last)  # files hold NCHW, and loading assigns what they hold
        return (model, info) if wants_info else model
