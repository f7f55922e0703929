"""The UNet discriminator, the paper's choice (section 4.3): logits for the pixels and for the image.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

Schonfeld et al. 2020, "A U-Net Based Discriminator for Generative Adversarial Networks", without classes: BigGAN's
residual blocks down to a bottleneck that gives one logit, and up again to a logit for every pixel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.discriminators.resampling import Resampling, ResamplingConv2d
from litevae.models.discriminators.spectral_norm import spectral_norm
from litevae_kernels.checks import wrong_value

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
            x = block(x)  # [B, C', H/2, W/2]
            skips.append(x)
        pooled = F.relu(skips.pop()).mean((2, 3), keepdim=True) * BOTTLENECK_POSITIONS  # [B, C, 1, 1]
        image_logit = self.bottleneck_out(pooled).flatten(1)  # [B, 1]
        for block in self.up_blocks:
            x = block(x)  # [B, C', 2H, 2W]
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
        return self.conv_out(x), image_logit  # [B, 1, H, W], [B, 1]

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


def _convolution(in_channels: int, out_channels: int, kernel_size: int, resampling: Resampling = "none") -> nn.Module:
    """With spectral norm and BigGAN's orthogonal start: all singular values are equal."""
    convolution = ResamplingConv2d(in_channels, out_channels, kernel_size, resampling)
    nn.init.orthogonal_(convolution.weight)
    return spectral_norm(convolution)
