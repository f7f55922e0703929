"""A convolution joined with the resampling by 2 beside it, for the blocks of the UNet discriminator.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Resampling = Literal["none", "down", "up"]
# Low-resolution pixels of a batch below which joining a resampling and a wide kernel costs more than it saves: both
# networks' updates go through the kernel's sums and their gradients once. Measured on a CPU in float32, where 150 to
# 250 pixels broke even at all widths from 128 to 1024.
FEWEST_POSITIONS = 256


class ResamplingConv2d(nn.Conv2d):
    """A convolution of odd size and stride 1, with the mean of 2x2 pixels behind it or their repetition before it.

    Either is one convolution of stride 2 with a kernel one larger: it sums up the four that 2x2 shifts of the kernel
    give. The result is the same, with 16 instead of 36 multiplications per low-resolution pixel of a 3x3 kernel, and
    nothing is kept at the high resolution in between. Where there are few pixels, the two are done one after the other.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, resampling: Resampling) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.resampling = resampling

    def forward(self, input: Tensor) -> Tensor:
        positions = input[:, 0].numel() // (4 if self.resampling == "down" else 1)
        border, joined = self.kernel_size[0] // 2, self.resampling != "none" and positions >= FEWEST_POSITIONS
        with _without_autocast(input.device):  # spectral norm and sums in float32
            weight = self.weight
            if joined and self.resampling == "down":
                weight = _sum_of_shifts(weight) / 4
            elif joined:  # a transposed convolution goes through its kernel backwards
                weight = _sum_of_shifts(weight.flip(2, 3).transpose(0, 1))
        if joined and self.resampling == "down":
            return F.conv2d(input, weight, self.bias, stride=2, padding=border)
        if joined:
            return F.conv_transpose2d(input, weight, self.bias, stride=2, padding=border)
        repeated = F.interpolate(input, scale_factor=2.0, mode="nearest") if self.resampling == "up" else input
        output = F.conv2d(repeated, weight, self.bias, padding=border)
        return F.avg_pool2d(output, 2) if self.resampling == "down" else output


def _without_autocast(device: torch.device) -> AbstractContextManager:
    """The meta device has none to switch off."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _sum_of_shifts(weight: Tensor) -> Tensor:
    """[O, I, k, k] -> [O, I, k+1, k+1]: the sum of the kernel moved by 0 or 1 down and 0 or 1 to the right.

    A product with a matrix of zeros and ones: one pass instead of a dozen. The result is channels_last.
    """
    out_channels, in_channels, size, _ = weight.shape
    identity = torch.eye(size + 1, dtype=weight.dtype, device=weight.device)
    along = identity[:-1] + identity[1:]  # [k, k+1]
    shifts = torch.kron(along, along)  # [kk, (k+1)(k+1)]
    taps = weight.permute(0, 2, 3, 1).reshape(out_channels, size * size, in_channels)
    return (shifts.t() @ taps).view(out_channels, size + 1, size + 1, in_channels).permute(0, 3, 1, 2)
