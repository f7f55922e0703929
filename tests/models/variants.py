"""Every encoder that a LiteVAE can have, narrow: name -> its arguments beside the defaults."""

from typing import Any, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)

NARROW: dict[str, Any] = {
    "extraction_channels": 8,
    "extraction_multipliers": (1,),
    "aggregation_channels": 8,
    "aggregation_multipliers": (1,),
    "nafnet_width": 8,
    "nafnet_blocks": 2,
    "vit_width": 16,
    "vit_depth": 2,
    "vit_heads": 2,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "nafnet": {"extraction": "nafnet"},
    "shared": {"shared_extraction": True},
    "vit": {"aggregation": "vit"},
    "last-two-levels": {"wavelet_levels": (2, 3)},
    "smc-encoder": {"encoder_normalization": "smc", "decoder_normalization": "smc"},
    "no-norm-encoder": {"encoder_normalization": "none"},
    "f4": {"wavelet_levels": (1, 2), "block_out_channels": (8, 8, 16)},
    "f16": {"wavelet_levels": (1, 2, 3, 4), "block_out_channels": (8, 8, 8, 8, 16)},
    "dwt": {"encoder_type": "dwt", "latent_channels": 12},
    "dwt-2": {"encoder_type": "dwt-2", "latent_channels": 48},
}


@torch.no_grad()
def randomized(model: Model) -> Model:
    """The model with noise on biases, gains and what starts as 0: the identity would hide what blocks do."""
    for parameter in model.parameters():
        if parameter.dim() <= 1 or not parameter.any():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
