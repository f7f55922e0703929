"""StyleGAN2's discriminator (Table 10): one logit for an image.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN": the residual discriminator.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae_kernels.checks import wrong_value

MOST_CHANNELS = 512
GROUP_SIZE = 4  # samples whose standard deviation is taken together


def width_at(side: int, channels: int) -> int:
    """Channels where the image is `side` pixels wide: `channels` at 256, inversely proportional, at most 512.

    64 are StyleGAN2's halved widths for 256x256 images (16384 / side), 128 its full ones (32768 / side).
    """
    return max(1, min(channels * 256 // side, MOST_CHANNELS))


class StyleGANDiscriminator(nn.Module):
    """image [B, 3, resolution, resolution] -> one logit for each image: ([B, 1],).

    Learning rates are equalised: weights start as N(0, 1) and are scaled when used. The standard deviation over a
    group of about 4 images is an input of the last layers, so `parts` (see `build_discriminator`) have their own
    groups, and a batch should have at least two images.

    Raises:
        ValueError: the image has another shape, or the parts are not equal.
    """

    def __init__(self, channels: int = 64, resolution: int = 256) -> None:
        super().__init__()
        self.resolution = resolution
        sides = [resolution >> level for level in range(resolution.bit_length() - 3)]  # resolution .. 8
        self.from_rgb = EqualizedConv2d(3, width_at(resolution, channels), 1)
        self.blocks = nn.ModuleList(
            ResidualBlock(width_at(side, channels), width_at(side // 2, channels)) for side in sides
        )
        width = width_at(4, channels)
        self.conv = EqualizedConv2d(width + 1, width, 3, padding=1)
        self.linear = EqualizedLinear(16 * width, width)
        self.linear_out = EqualizedLinear(width, 1)

    def forward(self, image: Tensor, parts: int = 1) -> tuple[Tensor]:
        side = self.resolution
        if image.dim() != 4 or image.shape[1:] != (3, side, side):
            rule = f"be [B, 3, {side}, {side}], as discriminator.resolution={side} says"
            raise wrong_value("image", rule, image, "set discriminator.resolution to the crop_size")
        if image.shape[0] % parts:
            raise wrong_value("parts", f"divide the batch of {image.shape[0]}", parts)
        x = _activation(self.from_rgb(image))  # [B, C, resolution, resolution]
        for block in self.blocks:
            x = block(x)  # [B, C', H/2, W/2], down to 4x4
        statistic = torch.cat([minibatch_deviation(part) for part in x.chunk(parts)])
        x = torch.cat([x, statistic.to(x.dtype)], dim=1)  # [B, C + 1, 4, 4]
        x = _activation(self.conv(x))  # [B, C, 4, 4]
        return (self.linear_out(_activation(self.linear(x.flatten(1)))),)


def minibatch_deviation(x: Tensor, group_size: int = GROUP_SIZE) -> Tensor:
    """[B, C, H, W] -> [B, 1, H, W], float32 or more: how much the images of a group differ.

    The standard deviation over the group, averaged over C, H and W; one value for all images and positions of the
    group. The batch is split into the fewest groups of at most `group_size`, as equal in size as can be.
    """
    statistics = []
    for group in x.tensor_split(-(-x.shape[0] // group_size)):
        centred = group.to(torch.promote_types(group.dtype, torch.float32))
        centred = centred - centred.mean(0)
        deviation = torch.sqrt(centred.square().mean(0) + 1e-8).mean()
        statistics.append(deviation.expand(group.shape[0], 1, *group.shape[2:]))
    return torch.cat(statistics)


class ResidualBlock(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, H/2, W/2]: two 3x3 convolutions beside a 1x1 one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, in_channels, 3, padding=1)
        self.blur = Blur(padding=2)
        self.conv2 = EqualizedConv2d(in_channels, out_channels, 3, stride=2)
        self.blur_shortcut = Blur(padding=1, stride=2)
        self.conv_shortcut = EqualizedConv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = _activation(self.conv1(x))
        hidden = _activation(self.conv2(self.blur(hidden)))
        return (hidden + self.conv_shortcut(self.blur_shortcut(x))) * math.sqrt(0.5)


class Blur(nn.Module):
    """Each channel convolved with [1, 3, 3, 1] / 8 in both directions, borders padded with zeros, every stride-th kept.

    [B, C, H, W] -> [B, C, (H + 2 * padding - 4) // stride + 1, ...]. What downsampling would alias is gone.
    """

    kernel: Tensor

    def __init__(self, padding: int, stride: int = 1) -> None:
        super().__init__()
        self.padding, self.stride = padding, stride
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=channels)


class EqualizedConv2d(nn.Conv2d):
    """A convolution whose weight starts as N(0, 1) and is divided by sqrt(fan-in) when used; bias starts at 0."""

    def reset_parameters(self) -> None:
        _start(self)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight / math.sqrt(self.weight[0].numel())
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class EqualizedLinear(nn.Linear):
    """The same for a linear layer: [B, in_features] -> [B, out_features]."""

    def reset_parameters(self) -> None:
        _start(self)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight / math.sqrt(self.in_features), self.bias)


def _start(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _activation(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)
