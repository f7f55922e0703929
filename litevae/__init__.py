"""LiteVAE (arXiv 2405.14477): the public names, each loaded when first used.

Importing this package changes nothing outside of it. `litevae.models` alone declares two operators of torchvision,
where a CPU-only torch could not import it otherwise (torchvision_shim.py).

>>> from litevae import LiteVAE, PRESETS
>>> sorted(PRESETS)
['B', 'L', 'M', 'S']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litevae.config import PRESETS, LiteVAEConfig, preset
    from litevae.loading import load_model
    from litevae.losses import AutoencoderLoss, LossConfig
    from litevae.models.baseline import StableDiffusionVAE
    from litevae.models.discriminators import DiscriminatorConfig, build_discriminator
    from litevae.models.latent import DiagonalGaussian
    from litevae.models.litevae import LiteVAE, LiteVAEOutput

__version__ = "0.1.0"
__all__ = [
    "PRESETS",
    "AutoencoderLoss",
    "DiagonalGaussian",
    "DiscriminatorConfig",
    "LiteVAE",
    "LiteVAEConfig",
    "LiteVAEOutput",
    "LossConfig",
    "StableDiffusionVAE",
    "build_discriminator",
    "load_model",
    "preset",
]

_LOCATIONS = {
    "PRESETS": "litevae.config",
    "AutoencoderLoss": "litevae.losses",
    "DiagonalGaussian": "litevae.models.latent",
    "DiscriminatorConfig": "litevae.models.discriminators",
    "LiteVAE": "litevae.models.litevae",
    "LiteVAEConfig": "litevae.config",
    "LiteVAEOutput": "litevae.models.litevae",
    "LossConfig": "litevae.losses",
    "StableDiffusionVAE": "litevae.models.baseline",
    "build_discriminator": "litevae.models.discriminators",
    "load_model": "litevae.loading",
    "preset": "litevae.config",
}


def __getattr__(name: str) -> Any:
    if name not in _LOCATIONS:
        raise AttributeError(f"module 'litevae' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_LOCATIONS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
