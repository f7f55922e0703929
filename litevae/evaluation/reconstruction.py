"""Reconstructions of images of any size.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> metrics
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of [B, C, H, W] until `multiple` divides both sides."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


@torch.no_grad()
def reconstruct(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Encode and decode images of one size, from the mode of their posterior.

    Args:
        model: a LiteVAE or StableDiffusionVAE in eval mode; called through its forward.
        images: float32 [B, 3, H, W] in [-1, 1], on the model's device; any H and W.

    Returns:
        The reconstructions [B, 3, H, W], float32, clamped to [-1, 1], and the latents [B, C, ceil(H/d), ceil(W/d)],
        where d is `model.downsampling`.
    """
    height, width = images.shape[-2:]
    output = model(pad_to_multiple(images, cast(Any, model).downsampling), sample_posterior=False)
    return output.sample[..., :height, :width].float().clamp(-1, 1), output.latent.float()
