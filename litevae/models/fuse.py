"""How do autoencoders of diffusers run this library's operators, with the weights and the code that they have?

`fuse` gives a block another class, whose `forward` is the same function in fewer passes over memory. No layer changes:
each is looked at in every call, and called as it is where anything but its own arithmetic depends on that.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder, Encoder, MaskConditionDecoder
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from litevae.models.blocks import is_patched, residual_sum
from litevae_kernels import group_norm_silu
from litevae_kernels.backends import choose_backend, environment
from litevae_kernels.checks import wrong_kind, wrong_value

Module = TypeVar("Module", bound=nn.Module)
# Where convolutions are faster in channels_last, by device; measured on a CPU alone. In float32 it is worth little
# there, and oneDNN's results are four times as far from exact ones.
CHANNELS_LAST_PAYS = {"cpu": (torch.bfloat16,), "cuda": (torch.float16, torch.bfloat16)}
STRIDES = "_strides_before_fuse"  # attribute of a convolution whose weight `fuse` laid out anew


def norm_silu(norm: nn.Module, activation: nn.Module, x: Tensor) -> Tensor:
    """activation(norm(x)), fused where these are a GroupNorm and a SiLU that nothing observes: [B, C, H, W] -> same."""
    is_pair = type(norm) is nn.GroupNorm and type(activation) is nn.SiLU
    if not is_pair or is_patched(norm) or is_patched(activation) or x.ndim != 4 or not _has_kernel(x):
        return activation(norm(x))
    if x.shape[0] == 1 and x.stride(0) != x.numel():  # out of Attention; NCHW to PyTorch, channels_last to the operator
        x = x.contiguous()
    layer: Any = norm
    return group_norm_silu(x, layer.num_groups, layer.weight, layer.bias, layer.eps)


def _has_kernel(x: Tensor) -> bool:
    """Whether an operator is faster than PyTorch's two; its plain definition, which runs elsewhere, is not."""
    return torch.compiler.is_compiling() or _device_has_kernel(x.device.type, environment())


@functools.cache
def _device_has_kernel(device: str, environment: object) -> bool:
    return device == "meta" or choose_backend(None, device, "group_norm_silu") != "reference"


class FusedResnetBlock2D(ResnetBlock2D):
    """ResnetBlock2D without time embedding and resampling: [B, in_channels, H, W] -> [B, out_channels, H, W]."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        hidden = self.conv1(norm_silu(self.norm1, self.nonlinearity, input_tensor))  # [B, out_channels, H, W]
        if temb is not None and self.time_embedding_norm == "default":
            hidden = hidden + temb
        hidden = self.dropout(norm_silu(self.norm2, self.nonlinearity, hidden))
        shortcut = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        result = residual_sum(shortcut, self.conv2, hidden)
        return result if self.output_scale_factor == 1 else result / self.output_scale_factor


class FusedEncoder(Encoder):
    """Encoder with its last norm fused: [B, 3, H, W] -> moments [B, 2 latent_channels, h, w]."""

    def forward(self, sample: Tensor) -> Tensor:
        sample = self.conv_in(sample)
        for block in (*self.down_blocks, self.mid_block):
            sample = _run(self, block, sample)
        return self.conv_out(norm_silu(self.conv_norm_out, self.conv_act, sample))


class FusedDecoder(Decoder):
    """Decoder with its last norm fused: [B, latent_channels, h, w] -> [B, 3, H, W]."""

    def forward(self, sample: Tensor, latent_embeds: Tensor | None = None) -> Tensor:
        if latent_embeds is not None:  # which a spatial norm takes
            return super().forward(sample, latent_embeds)
        sample = self.conv_in(sample)
        for block in (self.mid_block, *self.up_blocks):
            sample = _run(self, block, sample, None)
        return self.conv_out(norm_silu(self.conv_norm_out, self.conv_act, sample))


def _run(network: Any, block: nn.Module, *inputs: Tensor | None) -> Tensor:
    if torch.is_grad_enabled() and network.gradient_checkpointing:
        return network._gradient_checkpointing_func(block, *inputs)
    return block(*inputs)


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    ResnetBlock2D: FusedResnetBlock2D,
    Encoder: FusedEncoder,
    Decoder: FusedDecoder,
}
ORIGINAL = {fused: original for original, fused in FUSED.items()}
UNCHANGED = (Attention, MaskConditionDecoder, *ORIGINAL)  # that may hold a GroupNorm


def fuse(module: Module, *, channels_last: bool | None = None) -> Module:
    """Make an autoencoder of diffusers faster in place: GroupNorm and SiLU as one operator, sums within convolutions.

    For AutoencoderKL (Stable Diffusion, SDXL, SD3, FLUX), AutoencoderKLFlux2, AsymmetricAutoencoderKL, VQModel with
    group norms, their encoders and decoders. Results and gradients are the same up to rounding. The layers, the
    Parameter objects, the keys of the state dict and what `save_pretrained` writes stay; dtype and device may change
    afterwards, torch.compile and torch.export see the operator `litevae_kernels::group_norm_silu`. A layer that is
    hooked, replaced or adapted (LoRA) is called as it is, before and after. Of a fused module nothing but
    `channels_last` changes.

    Args:
        module: the autoencoder, or a part of it.
        channels_last: lay out the weights of convolutions so, after which results are channels_last too. None: where
            it pays: on a CPU in bfloat16, on a GPU in either half precision. False: as they were.

    Returns:
        `module` itself.

    Raises:
        TypeError: no nn.Module, or channels_last no bool.
        ValueError: a block that normalises in a way not known here, or none with GroupNorm and SiLU. Nothing is
            changed then.

    >>> from diffusers import AutoencoderKL
    >>> vae = AutoencoderKL(block_out_channels=(32,)).eval()
    >>> latent = torch.randn(1, 4, 8, 8)
    >>> with torch.no_grad():
    ...     expected = vae.decode(latent).sample
    ...     torch.allclose(fuse(vae).decode(latent).sample, expected, atol=1e-5)
    True
    """
    _check_module(module)
    if channels_last is not None and not isinstance(channels_last, bool):
        raise wrong_kind("channels_last", "be a bool or None", channels_last)
    for block in _blocks_to_fuse(module):
        block.__class__ = FUSED[type(block)]
    if _pays(module) if channels_last is None else channels_last:
        _lay_out_channels_last(module)
    else:
        _lay_out_as_before(module)
    return module


def unfuse(module: Module) -> Module:
    """Undo `fuse` in place: the classes and the strides of the weights are as before. Others are left alone.

    Returns:
        `module` itself.

    Raises:
        TypeError: no nn.Module. ValueError: something (an offloading hook) has since replaced the forward of a block.
    """
    _check_module(module)
    blocks: dict[str, Any] = {name: part for name, part in module.named_modules() if type(part) in ORIGINAL}
    for name, block in blocks.items():
        _check_forward(name, block)
    for block in blocks.values():
        block.__class__ = ORIGINAL[type(block)]
    _lay_out_as_before(module)
    return module


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        way_out = "of a pipeline pass its vae" if hasattr(module, "vae") else ""
        raise wrong_kind("module", "be a torch.nn.Module", module, way_out)


def _blocks_to_fuse(module: nn.Module) -> list[Any]:
    """Every block that changes; all of `module` is checked before."""
    blocks = []
    for name, part in module.named_modules():
        if type(part) in FUSED:
            _check_block(name, part)
            blocks.append(part)
        elif type(part) not in UNCHANGED:
            for child_name, child in part.named_children():
                if isinstance(child, nn.GroupNorm):
                    raise _unknown(f"{name}.{child_name}".lstrip("."), f"a {type(child).__name__} in", part)
    if not blocks and not any(type(part) in ORIGINAL for part in module.modules()):
        names = sorted({type(part).__name__ for part in module.modules() if "Norm" in type(part).__name__})
        got = f"{type(module).__name__}, which has {', '.join(names) or 'no norms'}"
        way_out = "module.to(memory_format=torch.channels_last) alone may help it"
        raise ValueError(f"module must have a ResnetBlock2D with GroupNorm and SiLU, got {got}; {way_out}")
    return blocks


def _check_block(name: str, block: Any) -> None:
    """The rules that `forward` of the fused classes relies on."""
    _check_forward(name, block)
    if isinstance(block, ResnetBlock2D):
        layers = {"norm1": nn.GroupNorm, "norm2": nn.GroupNorm, "nonlinearity": nn.SiLU}
        if block.time_emb_proj is not None or block.time_embedding_norm == "scale_shift":
            raise _unknown(name, "a time embedding in", block)
        if block.upsample is not None or block.downsample is not None:
            raise _unknown(name, "resampling within", block)
    else:
        layers = {"conv_norm_out": nn.GroupNorm, "conv_act": nn.SiLU}
    for layer, kind in layers.items():
        if type(found := getattr(block, layer)) is not kind:
            raise _unknown(f"{name}.{layer}".lstrip("."), f"a {type(found).__name__} for the {kind.__name__} of", block)


def _unknown(name: str, what: str, block: nn.Module) -> ValueError:
    return ValueError(
        f"module must have no norms but those that fuse() knows, got {what} {type(block).__name__}, at {name!r}; "
        "where a part has none of it, fuse that alone: fuse(vae.encoder)"
    )


def _check_forward(name: str, block: nn.Module) -> None:
    if "forward" in vars(block):
        rule = "have blocks with the forward of their class, which a hook (offloading) or a patch has replaced"
        raise wrong_value("module", rule, name, "remove it, then call this, then add it again")


def _pays(module: nn.Module) -> bool:
    weight = next(module.parameters())
    return weight.dtype in CHANNELS_LAST_PAYS.get(weight.device.type, ())


def _lay_out_channels_last(module: nn.Module) -> None:
    """Only plain weights: quantised, sharded or parametrised ones have a layout of their own."""
    for part in module.modules():
        weight: Any = part.weight if type(part) is nn.Conv2d else None
        if type(weight) is nn.Parameter and not weight.is_contiguous(memory_format=torch.channels_last):
            setattr(part, STRIDES, weight.stride())
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _lay_out_as_before(module: nn.Module) -> None:
    for part in module.modules():
        if strides := vars(part).pop(STRIDES, None):
            weight: Any = part.weight
            before = torch.empty_strided(weight.shape, strides, dtype=weight.dtype, device=weight.device)
            weight.data = before.copy_(weight.data)
