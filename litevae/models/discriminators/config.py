"""The `discriminator` section of a run's config, checked on construction.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

from dataclasses import dataclass

from litevae_kernels.checks import check_choice, check_int, check_number, wrong_value

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
    """Steps from one penalty to the next. The penalty is multiplied by it, so that its mean over steps stays."""

    def __post_init__(self) -> None:
        check_choice("discriminator.kind", self.kind, DISCRIMINATOR_KINDS)
        for name in ("channels", "r1_every"):
            check_int(f"discriminator.{name}", getattr(self, name), at_least=1)
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            raise wrong_value("discriminator.resolution", "be a power of two from 16 on", self.resolution)
        if self.learning_rate is not None:
            check_number("discriminator.learning_rate", self.learning_rate, above=0)
        if self.betas is not None and (len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas)):
            raise wrong_value("discriminator.betas", "be two numbers, each at least 0 and below 1", self.betas)
        check_number("discriminator.r1_weight", self.r1_weight, at_least=0)
