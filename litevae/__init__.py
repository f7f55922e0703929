"""LiteVAE (arXiv 2405.14477): the public names, each loaded when first used.

Importing this package changes nothing outside of it. `litevae.models` alone declares two operators of torchvision,
where a CPU-only torch could not import it otherwise (torchvision_shim.py).

>>> from litevae import LiteVAE, PRESETS
>>> sorted(PRESETS)
['B', 'L', 'M', 'S']
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litevae.config import PRESETS, LiteVAEConfig, preset
    from litevae.exporting import export_model
    from litevae.loading import load_model
    from litevae.losses import AutoencoderLoss, LossConfig
    from litevae.models.baseline import StableDiffusionVAE
    from litevae.models.discriminators import DiscriminatorConfig, build_discriminator
    from litevae.models.fuse import fuse, unfuse
    from litevae.models.hybrid import HybridAutoencoder
    from litevae.models.latent import DiagonalGaussian
    from litevae.models.litevae import LiteVAE, LiteVAEOutput
    from litevae.models.model_facts import Measurement, ModelFacts

__version__ = "0.1.0"
__all__ = [
    "PRESETS",
    "AutoencoderLoss",
    "DiagonalGaussian",
    "DiscriminatorConfig",
    "HybridAutoencoder",
    "LiteVAE",
    "LiteVAEConfig",
    "LiteVAEOutput",
    "LossConfig",
    "Measurement",
    "ModelFacts",
    "StableDiffusionVAE",
    "build_discriminator",
    "export_model",
    "fuse",
    "load_model",
    "preset",
    "unfuse",
]

_NAMES_OF_MODULES = {
    "litevae.config": ["PRESETS", "LiteVAEConfig", "preset"],
    "litevae.exporting": ["export_model"],
    "litevae.loading": ["load_model"],
    "litevae.losses": ["AutoencoderLoss", "LossConfig"],
    "litevae.models.baseline": ["StableDiffusionVAE"],
    "litevae.models.discriminators": ["DiscriminatorConfig", "build_discriminator"],
    "litevae.models.fuse": ["fuse", "unfuse"],
    "litevae.models.hybrid": ["HybridAutoencoder"],
    "litevae.models.latent": ["DiagonalGaussian"],
    "litevae.models.litevae": ["LiteVAE", "LiteVAEOutput"],
    "litevae.models.model_facts": ["Measurement", "ModelFacts"],
}


def __getattr__(name: str) -> Any:
    for module, names in _NAMES_OF_MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'litevae' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
