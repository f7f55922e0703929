"""A decoder or an encoder as a list of layers, each of which can make a part of its output.

image -> [DWT -> feature extraction -> aggregation] -> latent -> [decoder] -> losses
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.blocks import GroupNorm, ResBlock, SMConv2d, is_patched
from litevae.models.decoder import Decoder, MidBlock, SelfAttention, UpBlock, Upsample
from litevae.models.encoder import AnyEncoder, Encoder
from litevae.models.feature_network import FeatureNetwork
from litevae.models.nafnet import NAFNet
from litevae.models.tiling.partial_conv2d import PartialConv2d, Place, innermost, window_of
from litevae.models.tiling.windows import POINT, UPSAMPLED, Window
from litevae.models.unet import UNet
from litevae.models.vit import ViT
from litevae.models.wavelet_encoder import WaveletEncoder
from litevae_kernels import haar_dwt2d

Part = Encoder | WaveletEncoder | Decoder
_TAKEN_APART = (Encoder, WaveletEncoder, Decoder, FeatureNetwork, MidBlock, UpBlock, Upsample, ResBlock, GroupNorm)
_NORMS = (nn.GroupNorm, nn.modules.batchnorm._NormBase)  # BatchNorm and InstanceNorm are of the latter
_VECTORS = 64  # numbers that PyTorch's loop takes at once, at the most
Activation = Callable[[nn.Module, Tensor], Tensor]  # of an activation of a network and its input


@dataclass(frozen=True)
class Layer:
    """`run(parts of the inputs, place)` is a part of the output. Input k is value `inputs[k]`, read by `windows[k]`."""

    run: Callable[[Sequence[Tensor], Place], Tensor]
    inputs: tuple[int, ...]
    windows: tuple[Window, ...]


class Layers:
    """A network: value 0 is its input, value n the output of the n-th layer, the last value its result.

    `activate` calls the activations, GroupNorm's among them (statistics.py); None: as they are.
    """

    def __init__(self, activate: Activation | None = None) -> None:
        self.list: list[Layer] = []
        self.activated: list[tuple[nn.Module, int]] = []  # every activation, and the value that it reads
        self._activate = activate or activate_part
        self._convolve = PartialConv2d()

    def sizes(self, size: int) -> list[int]:
        """Of every value along an axis, for an input of `size`."""
        sizes = [size]
        for layer in self.list:
            sizes.append(layer.windows[-1].size(sizes[layer.inputs[-1]]))
        return sizes

    def readers(self, value: int) -> list[tuple[int, Window]]:
        """The values that are made of `value`, with the window that each reads it by."""
        return [
            (number, window)
            for number, layer in enumerate(self.list, start=1)
            for source, window in zip(layer.inputs, layer.windows, strict=True)
            if source == value
        ]

    def until(self, value: int) -> Layers:
        """The layers that make `value`, as a network."""
        part = Layers(self._activate)
        part.list, part._convolve = self.list[:value], self._convolve
        return part

    def add(self, run: Callable[[Sequence[Tensor], Place], Tensor], *inputs: tuple[int, Window]) -> int:
        """Returns the number of the new value."""
        values, windows = zip(*inputs, strict=True)
        self.list.append(Layer(run, values, windows))
        return len(self.list)

    def convolution(self, layer: nn.Module, *values: int, before: nn.Module | None = None) -> int:
        """layer(before(concat(values)))."""

        def run(parts: Sequence[Tensor], place: Place) -> Tensor:
            x = _concat(parts)
            x = x if before is None else self._activate(before, x)
            return self._convolve(layer, x, place)

        check_convolution(layer)
        if before is not None:
            self.activated.append((before, values[0]))
        return self.add(run, *((value, window_of(layer)) for value in values))

    def res_block(self, block: nn.Module, *values: int) -> int:
        """A ResBlock of concat(values)."""
        resnet = cast(ResBlock, block)
        hidden = self.convolution(resnet.conv1, *values, before=resnet.norm1)
        shortcut = resnet.conv_shortcut

        def run(parts: Sequence[Tensor], place: Place) -> Tensor:
            *xs, features = parts
            x = _concat(xs)
            if shortcut is not None:
                x = self._convolve(shortcut, x, Place((0, 0, 0, 0), place.whole))
            x = x.contiguous(memory_format=torch.channels_last)
            features = resnet.dropout(self._activate(resnet.norm2, features))
            return self._convolve.added(x, resnet.conv2, features, place)

        check_convolution(resnet.conv2)
        self.activated.append((resnet.norm2, hidden))
        if shortcut is not None:
            check_convolution(shortcut)
        return self.add(run, *((value, POINT) for value in values), (hidden, window_of(resnet.conv2)))

    def upsample(self, block: nn.Module, value: int) -> int:
        """An Upsample."""
        value = self.add(lambda parts, _: F.interpolate(parts[0], scale_factor=2.0, mode="nearest"), (value, UPSAMPLED))
        return self.convolution(cast(Upsample, block).conv, value)

    def unet(self, network: UNet, *values: int) -> int:
        """A UNet of concat(values)."""
        value = self.convolution(network.conv_in, *values)
        skips: list[int] = []
        for block in network.encoder_path:
            value = self.res_block(block, value)
            skips.append(value)
        for block in network.middle:
            value = self.res_block(block, value)
        for block in network.decoder_path:
            value = self.res_block(block, value, skips.pop())
        return self.convolution(network.conv_out, value)


def decoder_layers(decoder: Decoder, post_quant_conv: nn.Module | None = None) -> Layers:
    """latent [B, latent_channels, h, w] -> what the decoder gives; its attention is left out."""
    layers, value = Layers(), 0
    if post_quant_conv is not None:
        value = layers.convolution(post_quant_conv, value)
    value = layers.convolution(decoder.conv_in, value)
    for resnet in decoder.mid_block.resnets:
        value = layers.res_block(resnet, value)
    for block in cast(Iterable[UpBlock], decoder.up_blocks):
        for resnet in block.resnets:
            value = layers.res_block(resnet, value)
        for upsample in block.upsamplers:
            value = layers.upsample(upsample, value)
    layers.convolution(decoder.conv_out, value, before=decoder.conv_norm_out)
    return layers


def encoder_layers(encoder: AnyEncoder, quant_conv: nn.Module | None = None) -> Layers:
    """image [B, in_channels, H, W] -> moments, of UNets."""
    layers = Layers()
    if isinstance(encoder, WaveletEncoder):
        side = encoder.multiple
        layers.add(lambda parts, _: encoder.forward(parts[0]), (0, Window(kernel=side, stride=side)))
        return layers
    features, last = [], encoder.levels[-1]
    for index, (level, downsample) in enumerate(zip(encoder.levels, encoder.downsample, strict=True)):
        value = layers.add(_level(encoder, level), (0, Window(2**level, 2**level, align=2 ** (last - level))))
        value = layers.unet(cast(UNet, encoder.extraction[0 if encoder.is_shared else index]), value)
        features.append(value if level == last else layers.convolution(downsample, value))
    value = layers.unet(cast(UNet, encoder.aggregation), *features)
    if quant_conv is not None:
        layers.convolution(quant_conv, value)
    return layers


def _level(encoder: Encoder, level: int) -> Callable[[Sequence[Tensor], Place], Tensor]:
    """The sub-bands of `level`, from whole blocks of the last level, as the encoder computes them."""

    def run(parts: Sequence[Tensor], _: Place) -> Tensor:
        image = parts[0]
        dtype = next(encoder.parameters()).dtype if image.dtype == torch.uint8 else image.dtype
        levels = encoder.levels[-1]
        pyramid = haar_dwt2d(image, levels, scaling="mean", dtype=dtype, memory_format=torch.channels_last)
        return pyramid[level - 1]

    return run


def unbounded(part: Part) -> str:
    """Why a pixel of `part`'s result depends on all of its input; "" if it does not."""
    reasons: dict[type[nn.Module], str] = {
        GroupNorm: "GroupNorm takes the mean and variance of the whole image",
        SelfAttention: "attention sees the whole latent",
        NAFNet: "the NAFNet's channel attention takes means of the whole image",
        ViT: "the ViT's attention sees the whole latent",
    }
    found = [reason for kind, reason in reasons.items() if any(isinstance(module, kind) for module in part.modules())]
    return " and ".join(found)


def check_modules(part: nn.Module) -> None:
    """Raise a ValueError if calling a part's modules by their layers would leave out a hook or a new forward, or would
    normalise a part of a map by statistics of its own."""
    for name, module in part.named_modules():
        name = name or type(part).__name__.lower()
        if isinstance(module, _TAKEN_APART) and is_patched(module):
            raise _not_in_parts(name, "one with a hook or a replaced forward")
        if isinstance(module, _NORMS) and not isinstance(module, GroupNorm):
            raise _not_in_parts(name, f"a {type(module).__name__} in its place")


def check_convolution(layer: Any) -> None:
    """Raise a ValueError unless `layer` is a convolution padded with zeros, or PEFT's wrapper of one."""
    inner = innermost(layer)
    if (
        not isinstance(inner, (nn.Conv2d, SMConv2d))
        or getattr(inner, "padding_mode", "zeros") != "zeros"
        or "_conv_forward" in vars(inner)
        or (getattr(inner, "dilation", (1, 1)), getattr(inner, "groups", 1)) != ((1, 1), 1)
    ):
        raise _not_in_parts(type(inner).__name__, "a layer that is no plain convolution with zeros around the image")


def _not_in_parts(name: str, found: str) -> ValueError:
    return ValueError(
        f"{name} must be called layer by layer for exact tiles and rows, got {found}; remove it, or disable_tiling()"
    )


def activate_part(activation: nn.Module, x: Tensor) -> Tensor:
    """activation(x). SiLU of a float is rounded in one way in the middle of a run of memory, in another at its end.

    PyTorch's CPU kernel takes what is left of a run after whole vectors by other instructions. A part of a map ends
    where its whole goes on, so zeros are put behind it.
    """
    if type(activation) is not nn.SiLU or is_patched(activation) or torch.is_grad_enabled() or x.device.type != "cpu":
        result: Tensor = activation(x)
        return result
    batch, channels, height, width = x.shape
    numbers = x.new_empty(-(-x.numel() // _VECTORS) * _VECTORS)
    numbers[x.numel() :] = 0
    part = numbers[: x.numel()].view(batch, height, width, channels).permute(0, 3, 1, 2)  # channels_last
    part.copy_(x)
    F.silu(numbers, inplace=True)
    return part


def _concat(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)
