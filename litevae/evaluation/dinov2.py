"""DINOv2's features of images, for FD-DINOv2, from the published file alone: torchvision's ViT computes them.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]

torch.hub's way would download and run the code of a repository. The network differs from torchvision's ViT in two
things, which are folded into its weights: a factor for each channel after attention and MLP (LayerScale), and position
embeddings for 37x37 patches, which are resized to the 16x16 of a 224x224 image.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.evaluation.feature_networks import FeatureNetwork, randomize
from litevae.evaluation.weights import DINOV2_FILE, WeightSource, load_weights, needed_packages
from litevae.losses.vgg import IMAGENET_DEVIATION, IMAGENET_MEAN

_SIZE, _PATCH = 224, 14
_PATCHES = _SIZE // _PATCH  # on a side: 16
_TRAINED_PATCHES = 37
# DINOv2 resizes position embeddings by (16 + 0.1) / 37, not by 16 / 37.
_OFFSET = 0.1
# Of a block: DINOv2's names, torchvision's names, DINOv2's name of a factor of the output's channels.
_BLOCK = (
    ("norm1.", "ln_1.", None),
    ("attn.qkv.", "self_attention.in_proj_", None),
    ("attn.proj.", "self_attention.out_proj.", "ls1.gamma"),
    ("norm2.", "ln_2.", None),
    ("mlp.fc1.", "mlp.0.", None),
    ("mlp.fc2.", "mlp.3.", "ls2.gamma"),
)


@dataclass(frozen=True)
class VisionTransformerSize:
    """The size of a vision transformer (Dosovitskiy et al. 2021)."""

    width: int
    depth: int
    heads: int


LARGE = VisionTransformerSize(1024, 24, 16)


class Dinov2(FeatureNetwork):
    """DINOv2's class token (Oquab et al. 2023), for FD-DINOv2 (Stein et al. 2023) as EDM2 measures it: 1024 features.

    torch-fidelity's network of this name resizes bilinearly without antialiasing: its numbers are others.
    """

    protocol = (
        "DINOv2 ViT-L/14, 1024 features (class token), resized to 224x224 (bicubic, antialiased, not rounded), "
        "ImageNet's mean and deviation, float32"
    )
    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, source: WeightSource, width: int) -> None:
        super().__init__(network, source)
        self.width = width
        for name, values in (("mean", IMAGENET_MEAN), ("deviation", IMAGENET_DEVIATION)):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(1, 3, 1, 1))

    def _features(self, images: Tensor) -> Tensor:
        resized = F.interpolate(images.float(), (_SIZE, _SIZE), mode="bicubic", antialias=True)  # [B, 3, 224, 224]
        features: Tensor = self.network((resized / 255 - self.mean) / self.deviation)  # [B, 1024]
        return features


def build_dinov2(metric: str, source: WeightSource, size: VisionTransformerSize = LARGE) -> Dinov2:
    """On the CPU.

    Args:
        metric: what needs it, for messages.
        size: another one than the published network's is for tests.

    Raises:
        WeightsError: its weights cannot be had, or torchvision is not installed.
    """
    network = _unfilled(metric, size)
    if source.random:
        randomize(network)
    else:
        shapes = _published_shapes(network, size)
        network.load_state_dict(_folded(load_weights(DINOV2_FILE, metric, source, shapes, ("mask_token",)), size))
    return Dinov2(network, source, size.width)


def _unfilled(metric: str, size: VisionTransformerSize) -> nn.Module:
    """torchvision's network, whose parameters have no values yet: [B, 3, 224, 224] -> [B, width]."""
    with needed_packages(metric):
        from torchvision.models.vision_transformer import VisionTransformer
    with torch.device("meta"):  # draws no random numbers
        network: nn.Module = VisionTransformer(
            _SIZE,
            _PATCH,
            size.depth,
            size.heads,
            size.width,
            4 * size.width,
            norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        )
        network.heads = nn.Identity()
    return network.to_empty(device="cpu")


def _names(size: VisionTransformerSize) -> list[tuple[str, str, str | None]]:
    """(DINOv2's name, torchvision's, DINOv2's of a factor) of what both have in one shape."""
    names: list[tuple[str, str, str | None]] = [("cls_token", "class_token", None)]
    parts: list[tuple[str, str, str | None]] = [
        ("patch_embed.proj.", "conv_proj.", None),
        ("norm.", "encoder.ln.", None),
    ]
    for block in range(size.depth):
        ours, theirs = f"encoder.layers.encoder_layer_{block}.", f"blocks.{block}."
        parts += [(theirs + a, ours + b, factor and theirs + factor) for a, b, factor in _BLOCK]
    return names + [(a + kind, b + kind, factor) for a, b, factor in parts for kind in ("weight", "bias")]


def _published_shapes(network: nn.Module, size: VisionTransformerSize) -> dict[str, Tensor]:
    """Tensors of the shapes of the published file, by its names."""
    state = network.state_dict()
    shapes = {"pos_embed": torch.empty(1, 1 + _TRAINED_PATCHES**2, size.width, device="meta")}
    for theirs, ours, factor in _names(size):
        shapes[theirs] = state[ours]
        if factor:
            shapes[factor] = torch.empty(size.width, device="meta")
    return shapes


def _folded(weights: dict[str, Tensor], size: VisionTransformerSize) -> dict[str, Tensor]:
    """The published tensors as torchvision's network takes them."""
    state = {"encoder.pos_embedding": _resized_positions(weights["pos_embed"])}
    for theirs, ours, factor in _names(size):
        tensor = weights[theirs]
        if factor is not None:
            tensor = tensor * weights[factor].view(-1, *(1 for _ in tensor.shape[1:]))  # of a matrix's rows, or a bias
        state[ours] = tensor
    return state


def _resized_positions(positions: Tensor) -> Tensor:
    """[1, 1 + 37 * 37, C] to [1, 1 + 16 * 16, C]; the first belongs to the class token."""
    grid = positions[:, 1:].unflatten(1, (_TRAINED_PATCHES, _TRAINED_PATCHES)).permute(0, 3, 1, 2)  # [1, C, 37, 37]
    scale = (_PATCHES + _OFFSET) / _TRAINED_PATCHES
    resized = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")  # [1, C, 16, 16]
    return torch.cat([positions[:, :1], resized.flatten(2).mT], 1)  # [1, 1 + 16 * 16, C]
