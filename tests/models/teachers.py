"""Which teachers do the tests of hybrids use? The layouts of published autoencoders, narrow, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2

BLOCKS: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
WIDTHS = (128, 256, 512, 512)
WITHOUT_1X1: dict[str, Any] = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
# What the config.json files of the published models say, but for widths: class, then arguments.
LAYOUTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sd15": (AutoencoderKL, {**BLOCKS, "scaling_factor": 0.18215, "sample_size": 512, "force_upcast": False}),
    "sdxl": (AutoencoderKL, {**BLOCKS, "scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True}),
    "sd3": (AutoencoderKL, {**BLOCKS, **WITHOUT_1X1, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
    "flux": (AutoencoderKL, {**BLOCKS, **WITHOUT_1X1, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
    "flux2": (AutoencoderKLFlux2, {}),
    "flux2-small-decoder": (AutoencoderKLFlux2, {"decoder_block_out_channels": (96, 192, 384, 384)}),
}
# Parameters of the decoder and the 1x1 convolution before it, at the published widths.
DECODERS = {
    "sd15": 49_490_199,
    "sdxl": 49_490_199,
    "sd3": 49_545_475,
    "flux": 49_545_475,
    "flux2": 49_620_259,
}


def full_size(layout: str, device: str = "meta") -> Any:
    """The teacher as published, in eval mode; on a device that has memory its weights are random."""
    kind, arguments = LAYOUTS[layout]
    with torch.device(device):
        return kind(**{"block_out_channels": WIDTHS, **arguments}).eval()


def narrow(layout: str, **changes: Any) -> Any:
    """A teacher of 8 channels, in eval mode, whose every parameter and statistic is random."""
    kind, arguments = LAYOUTS[layout]
    sizes: dict[str, Any] = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    if "decoder_block_out_channels" in arguments:
        sizes["decoder_block_out_channels"] = (4, 4, 8, 8)
    generator = torch.Generator().manual_seed(0)
    teacher = kind(**{**arguments, **sizes, **changes}).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        if hasattr(teacher, "bn"):
            teacher.bn.running_mean.normal_(generator=generator)
            teacher.bn.running_var.uniform_(0.5, 2, generator=generator)
    return teacher


STUDENT: dict[str, Any] = {
    "extraction_channels": 4,
    "extraction_multipliers": (1,),
    "aggregation_channels": 4,
    "aggregation_multipliers": (1,),
}
