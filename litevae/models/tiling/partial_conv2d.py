"""How is a convolution of a part of a map rounded as in the convolution of the whole?

By the same taps of each position, and by the implementation that PyTorch would choose for the whole: on a CPU it sends
maps of few elements another way (aten/src/ATen/native/Convolution.cpp). Within an implementation the order in which a
position's products are added is the library's, and may depend on the shape; benchmarks/large_images.py tells whether it
does on a machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.blocks import SMConv2d, is_patched
from litevae.models.tiling.windows import Window
from litevae_kernels import conv2d_add, smc_conv2d

_BACKEND = getattr(torch._C, "_ConvBackend", None)


class Place(NamedTuple):
    """Where a part lies: how many zeros of padding belong to it, and how large the whole is.

    padding: left, right, top, bottom, as F.pad takes them. whole: height and width of the map that the part is of.
    """

    padding: tuple[int, int, int, int]
    whole: tuple[int, int]


def innermost(layer: Any) -> Any:
    """The convolution in a wrapper of PEFT, or the layer itself."""
    while hasattr(layer, "base_layer"):
        layer = layer.base_layer
    return layer


def window_of(layer: nn.Module) -> Window:
    """The window of a convolution with a square kernel, stride and padding."""
    inner = innermost(layer)
    if isinstance(inner, SMConv2d):
        return Window(inner.weight.shape[-1], inner.stride, inner.padding)
    return Window(inner.kernel_size[0], inner.stride[0], inner.padding[0])


class PartialConv2d:
    """Convolutions of parts of maps. The weights of self-modulated ones are folded once and kept."""

    def __init__(self) -> None:
        self._folded: dict[nn.Module, Tensor] = {}

    def __call__(self, layer: nn.Module, x: Tensor, place: Place) -> Tensor:
        """The part of layer(whole) that x [B, I, h, w], with `place.padding` around it, makes: [B, O, h', w']."""
        if not _is_plain(layer):
            return _called(layer, x, place)
        x, padding = _padded(x, place)
        plain: Any = layer
        if isinstance(layer, SMConv2d):
            if _autocast(x) or torch.is_grad_enabled():
                numbers = plain.weight, plain.scales, plain.gain, plain.bias
                return smc_conv2d(x, *numbers, stride=plain.stride, padding=padding, eps=plain.eps)
            weight, bias, stride = self._weight(layer, x), plain.bias.to(x.dtype), (plain.stride, plain.stride)
        else:
            weight, bias, stride = plain.weight, plain.bias, plain.stride
        window = window_of(layer)
        return _conv2d(x, weight, bias, stride, padding, place.whole, (window.padding, window.padding))

    def added(self, residual: Tensor, layer: nn.Module, x: Tensor, place: Place) -> Tensor:
        """residual + the same, as `residual_sum` of blocks.py."""
        if torch.is_grad_enabled() or not _is_plain(layer):
            return residual + self(layer, x, place)
        x, padding = _padded(x, place)
        plain: Any = layer
        if isinstance(layer, SMConv2d):
            return conv2d_add(residual, x, self._weight(layer, x), plain.bias.to(x.dtype), padding=padding)
        return conv2d_add(residual, x, plain.weight, plain.bias, padding=padding)

    def _weight(self, layer: SMConv2d, x: Tensor) -> Tensor:
        if layer not in self._folded:
            self._folded[layer] = layer.folded_weight(x.dtype)
        return self._folded[layer]


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) in (nn.Conv2d, SMConv2d) and not is_patched(layer) and layer._compiled_call_impl is None


def _autocast(x: Tensor) -> bool:
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _padded(x: Tensor, place: Place) -> tuple[Tensor, tuple[int, int]]:
    """x with the zeros that one side of an axis has alone, in channels_last, and the padding of both its sides."""
    left, right, top, bottom = place.padding
    rows, columns = min(top, bottom), min(left, right)
    own = left - columns, right - columns, top - rows, bottom - rows
    x = F.pad(x, own) if any(own) else x
    return x.contiguous(memory_format=torch.channels_last), (rows, columns)


def _called(layer: nn.Module, x: Tensor, place: Place) -> Tensor:
    """By the layer itself, which pads every side: what its zeros touched inside of the whole is cut off."""
    window = window_of(layer)
    left, right, top, bottom = place.padding
    height, width = x.shape[2] + top + bottom, x.shape[3] + left + right
    rows, columns = ((side - window.kernel) // window.stride + 1 for side in (height, width))
    # The layer's zeros become an output position more before the first one, where the part begins inside the whole.
    first_row, first_column = (int(window.padding > pad) for pad in (top, left))
    front = window.stride - window.padding
    x = F.pad(x, (front * first_column, 0, front * first_row, 0))
    result: Tensor = layer(x.contiguous(memory_format=torch.channels_last))
    return result[:, :, first_row : first_row + rows, first_column : first_column + columns]


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: tuple[int, int],
    whole: tuple[int, int],
    whole_padding: tuple[int, int],
) -> Tensor:
    """F.conv2d, by the implementation of the whole."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or _autocast(x) or _BACKEND is None:
        return F.conv2d(x, weight, bias, stride, padding)
    here = _backend(x, weight, bias, stride, padding)
    there = _backend(x.new_empty(1).expand(*x.shape[:2], *whole), weight, bias, stride, whole_padding)
    if here != there and there == _BACKEND.Mkldnn:
        pointwise = torch.ops.mkldnn._convolution_pointwise
        return pointwise(x, weight, bias, padding, stride, (1, 1), 1, "none", [], None)
    if here != there and there == _BACKEND.Slow2d:
        return torch.ops.aten.thnn_conv2d(x, weight, weight.shape[2:], bias, stride, padding)
    return F.conv2d(x, weight, bias, stride, padding)


def _backend(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: tuple[int, int]) -> Any:
    bias_sizes = None if bias is None else bias.shape
    return torch._C._select_conv_backend(x, weight, bias, stride, padding, (1, 1), False, (0, 0), 1, bias_sizes)
