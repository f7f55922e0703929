"""How does a decoder whose activations exceed float16's 65504 stay finite in it? Its residual stream is scaled down.

image -> DWT -> feature extraction -> aggregation -> latent -> [decoder] -> losses

What every block adds to is read by GroupNorm and by linear layers alone. So all of it may be multiplied by a power of
two, from the first convolution to the last norm: the layers that write to it are multiplied, the norms that read it get
an eps that is multiplied by its square, and the result is the same but for rounding.
"""

from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from litevae.models.blocks import ResBlock
from litevae.models.decoder import SelfAttention, Upsample

FACTOR = 2.0**-6
"""Activations up to 65504 / FACTOR, 4.2 million, stay finite; float16 rounds those below 0.004 more coarsely then."""


@torch.no_grad()
def extend_range(part: nn.Module) -> None:
    """Multiply the residual stream of a decoder (or encoder of diffusers' AutoencoderKL) by FACTOR, in place.

    Parts whose stream ends in another thing than GroupNorm stay as they are: without norms, or with SMC, whose weights
    keep activations small.
    """
    stream: Any = part
    if not isinstance(getattr(part, "conv_norm_out", None), nn.GroupNorm):
        return
    _multiply(stream.conv_in.weight, stream.conv_in.bias)
    _multiply_eps(stream.conv_norm_out)
    for module in part.modules():
        kind, block = type(module), cast(Any, module)
        if issubclass(kind, ResBlock | ResnetBlock2D):
            _multiply(block.conv1.weight, block.conv1.bias, block.conv2.weight, block.conv2.bias)
            _multiply_eps(block.norm1, block.norm2)
            if block.conv_shortcut is not None:
                _multiply(block.conv_shortcut.bias)  # its input is the stream
        elif issubclass(kind, SelfAttention | Attention):
            _multiply(block.to_out[0].weight, block.to_out[0].bias)
            _multiply_eps(block.group_norm)
        elif issubclass(kind, Upsample | Upsample2D | Downsample2D):
            _multiply(block.conv.bias)


def _multiply(*parameters: Tensor | None) -> None:
    for parameter in parameters:
        if parameter is not None:
            parameter.mul_(FACTOR)


def _multiply_eps(*norms: nn.GroupNorm) -> None:
    for norm in norms:
        norm.eps *= FACTOR**2
