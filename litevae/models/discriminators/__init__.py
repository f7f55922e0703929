"""The discriminators: `unet.py` is the paper's, `patchgan.py` and `stylegan.py` are those of Table 10.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from torch import nn

from litevae.models.discriminators.config import DISCRIMINATOR_KINDS, DiscriminatorConfig
from litevae.models.discriminators.patchgan import PatchDiscriminator
from litevae.models.discriminators.stylegan import StyleGANDiscriminator
from litevae.models.discriminators.unet import UNetDiscriminator

__all__ = [
    "DISCRIMINATOR_KINDS",
    "DiscriminatorConfig",
    "PatchDiscriminator",
    "StyleGANDiscriminator",
    "UNetDiscriminator",
    "build_discriminator",
]


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """The discriminator that the `discriminator` section of a config describes, with random weights.

    All are called alike: `discriminator(image, parts=1)`, image [B, 3, H, W] in [-1, 1], and give a tuple of logits
    (litevae/losses/adversarial.py takes it as it is). `parts`: the batch consists of so many batches of equal size,
    images and then reconstructions, and each gets the logits it would get alone. Otherwise PatchGAN's batch statistics
    and StyleGAN's minibatch standard deviation would tell the one from the other. In `eval()` a forward pass changes
    no state.

    >>> import torch
    >>> discriminator = build_discriminator(DiscriminatorConfig(kind="unet", channels=2, resolution=32))
    >>> [tuple(logits.shape) for logits in discriminator(torch.zeros(1, 3, 32, 64))]
    [(1, 1, 32, 64), (1, 1)]
    """
    if config.kind == "unet":
        return UNetDiscriminator(config.channels, config.resolution)
    if config.kind == "patchgan":
        return PatchDiscriminator(config.channels)
    return StyleGANDiscriminator(config.channels, config.resolution)
