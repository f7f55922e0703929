"""What must one know of an exported file to use it without this package? What is written beside it, and into it.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

import json
from typing import Any

import torch
from torch import Tensor

import litevae
from litevae.exporting.graphs import Autoencoder, Graph
from litevae.exporting.request import Size
from litevae.models.litevae import LiteVAE

KEY = "litevae"  # of the text in an ONNX file's metadata, and in an AOTInductor package's
EXTRA_FILE = "litevae.json"  # of the same in a program of torch.export
VERSIONED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "aoti": ()}
MEANINGS = {
    "image": "in [-1, 1]: (pixel / 127.5) - 1, RGB; the decoder's is not clamped",
    "latent": "mean, or mean + std * noise; a diffusion model's, x, is x / scaling_factor + shift_factor first",
    "mean": "of the latent's posterior",
    "std": "of the latent's posterior: a sample is mean + std * noise",
}


def describe(
    model: Autoencoder, graph: Graph, to: str, results: tuple[Tensor, ...], size: Size | None, dtype: torch.dtype
) -> dict[str, Any]:
    """The description of a file, as JSON has it.

    Args:
        results: what the graph gives, for the channels.
        size: [B, H, W] of the only images that it takes; None: all.
    """
    config: Any = model.config if isinstance(model, LiteVAE) else model.vae.config
    factor, part = model.downsampling, "encoder" if graph.inputs == ("image",) else "decoder"
    channels = {"image": config.in_channels, "latent": model.latent_channels}
    channels |= {name: result.shape[1] for name, result in zip(graph.outputs, results, strict=True)}

    def tensors(names: tuple[str, ...]) -> list[dict[str, Any]]:
        kind = str(dtype).removeprefix("torch.")
        shapes = {name: [channels[name], *_sides(name, factor, size)] for name in names}
        batch = "B" if size is None else size[0]
        return [
            {"name": name, "shape": [batch, *shape], "dtype": kind, "meaning": MEANINGS[name]}
            for name, shape in shapes.items()
        ]

    return {
        "model": type(model).__name__,
        "part": part,
        "format": to,
        "inputs": tensors(graph.inputs),
        "outputs": tensors(graph.outputs),
        "downsampling": factor,
        "latent_channels": model.latent_channels,
        "scaling_factor": config.scaling_factor,
        "shift_factor": config.get("shift_factor") or 0.0,
        "latent_channel_means": config.get("latent_channel_means"),
        "latent_channel_stds": config.get("latent_channel_stds"),
        "config": {name: value for name, value in sorted(config.items()) if not name.startswith("_")},
        "versions": {"litevae": litevae.__version__, "torch": torch.__version__, **_versions(VERSIONED[to])},
    }


def as_json(description: dict[str, Any]) -> str:
    return json.dumps(description, indent=2) + "\n"


def _sides(name: str, factor: int, size: Size | None) -> list[Any]:
    """Height and width: numbers, or "h" and "w" of a latent and, of an image, a multiple of these."""
    is_image = name == "image"
    if size is not None:
        return [side if is_image else side // factor for side in size[1:]]
    return [f"{factor}*{side}" if is_image and factor > 1 else side for side in ("h", "w")]


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in packages}
