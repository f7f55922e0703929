"""Which pixels look reconstructed? The UNet discriminator, the paper's choice (section 4.3).

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

Schonfeld et al. 2020, "A U-Net Based Discriminator for Generative Adversarial Networks", without classes: BigGAN's
residual blocks down to a bottleneck that gives one logit, and up again to a logit for every pixel.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.discriminators.spectral_norm import spectral_norm
from litevae_kernels.checks import wrong_value

# Low-resolution pixels of a batch below which joining a resampling and a wide kernel costs more than it saves: both
# networks' updates go through the kernel's sums and their gradients once. Measured on a CPU in float32, where 150 to
# 250 pixels broke even at all widths from 128 to 1024.
FEWEST_POSITIONS = 256
BOTTLENECK_POSITIONS = 16  # the bottleneck of an image of the chosen resolution is 4x4


def encoder_widths(channels: int, resolution: int) -> list[int]:
    """Widths of the encoder's blocks; each halves the image, down to 4x4 (256 and less).

    >>> encoder_widths(64, 256), encoder_widths(64, 128), encoder_widths(64, 32)
    ([64, 128, 256, 512, 512, 1024], [64, 128, 256, 512, 1024], [64, 128, 256])
    """
    if resolution >= 256:
        multipliers = [1, 2, 4, 8, 8, 16]
    else:
        multipliers = [2**level for level in range(resolution.bit_length() - 3)]
    return [channels * multiplier for multiplier in multipliers]


class UNetDiscriminator(nn.Module):
    """image [B, 3, H, W] -> a logit for every pixel [B, 1, H, W] and one for the image [B, 1].

    The paper's has 44,067,586 parameters: channels 64, resolution 256. H and W are multiples of 64 then, of 32 at
    resolution 128. Every weight is divided by an estimate of its largest singular value, which each forward pass in
    training improves by one power iteration. The bottleneck is summed up over its positions as at the chosen
    resolution, so its logit keeps its scale for images of other sizes.

    No image influences another's logits: `parts` (see `build_discriminator`) makes no difference.

    Raises:
        ValueError: the image has another shape.
    """

    def __init__(self, channels: int = 64, resolution: int = 256) -> None:
        super().__init__()
        widths = encoder_widths(channels, resolution)
        self.resolution, self.downsampling = resolution, 2 ** len(widths)
        self.down_blocks = nn.ModuleList(
            DownBlock(before, width, has_activation=level > 0)
            for level, (before, width) in enumerate(zip([3, *widths], widths, strict=False))
        )
        mirrored = [*widths[-2::-1], widths[0]]
        inputs = [widths[-1], *(2 * width for width in mirrored[:-1])]  # behind the bottleneck with a skip each
        self.up_blocks = nn.ModuleList(UpBlock(before, width) for before, width in zip(inputs, mirrored, strict=True))
        self.conv_out = _convolution(widths[0], 1, 1)
        self.bottleneck_out = _convolution(widths[-1], 1, 1)  # of one position: a linear layer

    def forward(self, image: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
        self._check(image)
        x, skips = image, []
        for block in self.down_blocks:
            x = block(x)
            skips.append(x)
        pooled = F.relu(skips.pop()).mean((2, 3), keepdim=True) * BOTTLENECK_POSITIONS
        of_image = self.bottleneck_out(pooled).flatten(1)
        for block in self.up_blocks:
            x = block(x)
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
        return self.conv_out(x), of_image

    def _check(self, image: Tensor) -> None:
        factor = self.downsampling
        if image.dim() != 4 or image.shape[1] != 3 or image.shape[2] % factor or image.shape[3] % factor:
            rule = (
                f"be [B, 3, H, W], H and W multiples of {factor}, as discriminator.resolution={self.resolution} needs"
            )
            raise wrong_value("image", rule, image, "choose another crop_size or a lower discriminator.resolution")


class DownBlock(nn.Module):
    """BigGAN's block of a discriminator: [B, in_channels, H, W] -> [B, out_channels, H/2, W/2].

    mean2x2(conv2(relu(conv1(relu(x))))) + shortcut(mean2x2(x)), 3x3 convolutions and a 1x1 shortcut. The first block
    sees the image and has no first relu.
    """

    def __init__(self, in_channels: int, out_channels: int, has_activation: bool = True) -> None:
        super().__init__()
        self.has_activation = has_activation
        self.conv1 = _convolution(in_channels, out_channels, 3)
        self.conv2 = _convolution(out_channels, out_channels, 3, "down")
        self.conv_shortcut = _convolution(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(x) if self.has_activation else x)
        return self.conv2(F.relu(hidden, inplace=True)) + self.conv_shortcut(F.avg_pool2d(x, 2))


class UpBlock(nn.Module):
    """BigGAN's block of a generator, without norms: [B, in_channels, H, W] -> [B, out_channels, 2H, 2W].

    conv2(relu(conv1(twice(relu(x))))) + shortcut(twice(x)), where twice repeats each pixel 2x2.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels, 3, "up")
        self.conv2 = _convolution(out_channels, out_channels, 3)
        self.conv_shortcut = _convolution(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))
        return hidden + F.interpolate(self.conv_shortcut(x), scale_factor=2.0, mode="nearest")


class ResamplingConv2d(nn.Conv2d):
    """A convolution of odd size and stride 1, with the mean of 2x2 pixels behind it or their repetition before it.

    Either is one convolution of stride 2 with a kernel one larger: it sums up the four that 2x2 shifts of the kernel
    give. The result is the same, with 16 instead of 36 multiplications per low-resolution pixel of a 3x3 kernel, and
    nothing is kept at the high resolution in between. Where there are few pixels, the two are done one after the other.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, resampling: Literal["none", "down", "up"]
    ) -> None:
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


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int, resampling: Literal["none", "down", "up"] = "none"
) -> nn.Module:
    """With spectral norm and BigGAN's orthogonal start: all singular values are equal."""
    convolution = ResamplingConv2d(in_channels, out_channels, kernel_size, resampling)
    nn.init.orthogonal_(convolution.weight)
    return spectral_norm(convolution)
