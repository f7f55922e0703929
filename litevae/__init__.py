"""What does `import litevae` offer? The model layer of LiteVAE (arXiv 2405.14477), loaded when first used.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

>>> from litevae import LiteVAE, PRESETS
>>> sorted(PRESETS)
['B', 'L', 'M', 'S']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# First: diffusers and lpips import torchvision, which a CPU-only torch cannot load without it.
from litevae import torchvision_shim

if TYPE_CHECKING:
    from litevae.config import PRESETS, LiteVAEConfig
    from litevae.models.latent import DiagonalGaussian
    from litevae.models.litevae import LiteVAE, LiteVAEOutput

__version__ = "0.1.0"
__all__ = ["PRESETS", "DiagonalGaussian", "LiteVAE", "LiteVAEConfig", "LiteVAEOutput"]

torchvision_shim.install()

_LOCATIONS = {
    "PRESETS": "litevae.config",
    "LiteVAEConfig": "litevae.config",
    "DiagonalGaussian": "litevae.models.latent",
    "LiteVAE": "litevae.models.litevae",
    "LiteVAEOutput": "litevae.models.litevae",
}


def __getattr__(name: str) -> Any:
    if name not in _LOCATIONS:
        raise AttributeError(f"module 'litevae' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_LOCATIONS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
