"""The PatchGAN discriminator of Stable Diffusion's autoencoder (Table 10): logits for patches.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

Isola et al. 2017 (pix2pix); three layers of stride 2, as latent diffusion's training code has it.
"""

import torch
from torch import Tensor, nn

from litevae_kernels.checks import wrong_value

SMALLEST_SIDE = 24  # 3 pixels at 1/8, of which the last two convolutions take one each


class PatchDiscriminator(nn.Module):
    """image [B, 3, H, W] -> one logit for each overlapping patch of 70x70 pixels: ([B, 1, H//8 - 2, W//8 - 2],).

    2,765,633 parameters with 64 channels. BatchNorm always uses the statistics of the batch, in `eval()` too, and
    keeps no running ones: a forward pass for the generator changes nothing. These statistics would tell the images from
    the reconstructions in one batch, so `parts` (see `build_discriminator`) go through it one after the other.

    Raises:
        ValueError: the image has another shape, is smaller than 24 pixels a side, or the parts are not equal.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for before, after, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(before * channels, after * channels, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after * channels, track_running_stats=False),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * channels, 1, 4, stride=1, padding=1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, image: Tensor, parts: int = 1) -> tuple[Tensor]:
        if image.dim() != 4 or image.shape[1] != 3 or min(image.shape[2:]) < SMALLEST_SIDE:
            raise wrong_value("image", f"be [B, 3, H, W], H and W at least {SMALLEST_SIDE}", image)
        if image.shape[0] % parts:
            raise wrong_value("parts", f"divide the batch of {image.shape[0]}", parts)
        return (torch.cat([self.layers(part) for part in image.chunk(parts)]),)  # [B, 1, H//8 - 2, W//8 - 2]
