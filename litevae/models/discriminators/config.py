"""What can a discriminator be told? The `discriminator` section of a run's config, checked on construction.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import math
from dataclasses import dataclass

DISCRIMINATOR_KINDS = ("unet", "patchgan", "stylegan")


@dataclass
class DiscriminatorConfig:
    """The network of the adversarial term, and how it is trained. Its weight, loss and start: section `loss`."""

    kind: str = "unet"
    """"unet", the paper's choice; "patchgan" or "stylegan" (Table 10)."""
    channels: int = 64
    """Width of the first layer (of StyleGAN's: of the layers at 256x256 pixels)."""
    resolution: int = 256
    """The image side its depth is chosen for. A UNet takes every size that its downsampling divides, StyleGAN's this
    one only; PatchGAN has one depth for all."""
    learning_rate: float | None = None
    """Of its Adam. None: the generator's, `train.learning_rate`."""
    betas: list[float] | None = None
    """Of its Adam. None: the generator's, `train.betas`."""
    r1_weight: float = 0.0
    """gamma of the gradient penalty R1, gamma/2 * mean |gradient|^2. 0: none."""
    r1_every: int = 16
    """Steps from one penalty to the next; each is so many times as heavy, so that the mean over steps stays."""

    def __post_init__(self) -> None:
        if self.kind not in DISCRIMINATOR_KINDS:
            raise ValueError(f"discriminator.kind must be one of {', '.join(DISCRIMINATOR_KINDS)}, got {self.kind!r}")
        for name in ("channels", "r1_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"discriminator.{name} must be at least 1, got {getattr(self, name)}")
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            raise ValueError(f"discriminator.resolution must be a power of two from 16 on, got {self.resolution}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"discriminator.learning_rate must be greater than 0, got {self.learning_rate}")
        if self.betas is not None and (len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas)):
            rule = "be two numbers, each at least 0 and less than 1"
            raise ValueError(f"discriminator.betas must {rule}, got {self.betas}")
        if not 0 <= self.r1_weight < math.inf:
            raise ValueError(f"discriminator.r1_weight must be at least 0, got {self.r1_weight}")
