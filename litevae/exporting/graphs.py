"""What is exported: encoder or decoder as a function of tensors alone, and its graph of PyTorch's own operators.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from litevae.exporting.half_range import extend_range
from litevae.exporting.request import Size
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.decoder import Upsample
from litevae.models.litevae import LiteVAE
from litevae_kernels import export_decompositions

Autoencoder = LiteVAE | StableDiffusionVAE


class EncoderGraph(nn.Module):
    """image [B, C, H, W] in [-1, 1] -> mean and std of the latent's posterior, [B, latent_channels, h, w] each."""

    inputs, outputs = ("image",), ("mean", "std")

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        posterior: Any = self.model.encode(image).latent_dist
        return posterior.mean.to(image.dtype), posterior.std.to(image.dtype)


class DecoderGraph(nn.Module):
    """latent [B, latent_channels, h, w] -> image [B, C, H, W], not clamped."""

    inputs, outputs = ("latent",), ("image",)

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> tuple[Tensor]:
        return (cast(Any, self.model.decode(latent)).sample,)


Graph = EncoderGraph | DecoderGraph
GRAPHS: dict[str, Callable[[Autoencoder], Graph]] = {"encoder": EncoderGraph, "decoder": DecoderGraph}


def prepared(model: Autoencoder, dtype: torch.dtype) -> Autoencoder:
    """A copy for export: eval, without gradients, slices or tiles, SMC folded, float16 with a residual stream in range.

    `model` itself stays as it is.
    """
    ready: Any
    if isinstance(model, LiteVAE):
        ready = model.optimize_for_inference()
        ready.disable_slicing()
        ready.disable_tiling()
        parts: tuple[Any, ...] = (ready.decoder,)
    else:
        ready = copy.deepcopy(model).eval().requires_grad_(False)
        ready.vae.disable_slicing()
        ready.vae.disable_tiling()
        parts = ready.encoder, ready.decoder
    for part in parts:
        _without_size_rules(part)
        if dtype == torch.float16:
            extend_range(part)
    nn.Module.to(ready, dtype=dtype)  # diffusers' own `to` warns of modules that there are none of
    return ready


def _without_size_rules(part: nn.Module) -> None:
    """diffusers' upsampling copies batches of 64 and more, by a rule that a graph for every batch cannot have."""
    for block in part.modules():
        upsamplers = getattr(block, "upsamplers", None) or ()
        for index, upsampler in enumerate(upsamplers):
            if isinstance(upsampler, Upsample2D) and upsampler.norm is None and upsampler.use_conv:
                plain = Upsample(upsampler.channels)
                plain.conv = cast(nn.Conv2d, upsampler.conv)
                upsamplers[index] = plain


def example(model: Autoencoder, part: str, size: Size, seed: int = 0) -> Tensor:
    """A float32 input of `part` for images of that size: pixels in [-1, 1], or a latent as a diffusion model makes."""
    batch, height, width = size
    generator = torch.Generator().manual_seed(seed)
    config: Any = model.config if isinstance(model, LiteVAE) else model.vae.config
    if part == "encoder":
        return torch.rand(batch, config.in_channels, height, width, generator=generator) * 2 - 1
    factor = model.downsampling
    latent = torch.randn(batch, model.latent_channels, height // factor, width // factor, generator=generator)
    return latent / config.scaling_factor + (config.get("shift_factor") or 0.0)


def traced(graph: Graph, inputs: Tensor, is_static: bool) -> ExportedProgram:
    """The graph for inputs of this shape or, unless `is_static`, of every batch, height and width."""
    step = graph.model.downsampling if isinstance(graph, EncoderGraph) else 1
    sides: Any = {0: Dim("batch"), 2: step * Dim("height"), 3: step * Dim("width")}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec", category=FutureWarning)
        program = torch.export.export(graph.eval(), (inputs,), dynamic_shapes=None if is_static else (sides,))
        table: dict[Any, Any] = {**export_decompositions(), torch.ops.aten.group_norm.default: _group_norm}
        return _without_traces(_without_unused_weights(program.run_decompositions(table)))


def _without_unused_weights(program: ExportedProgram) -> ExportedProgram:
    """Without the other part of the model, which the program would keep and a file hold."""
    signature = program.graph_signature
    for spec, node in list(zip(signature.input_specs, program.graph.find_nodes(op="placeholder"), strict=True)):
        if not node.users and spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            program.graph.erase_node(node)
            signature.input_specs.remove(spec)
            del program.state_dict[cast(str, spec.target)]
    program.graph_module.recompile()
    return program


def _without_traces(program: ExportedProgram) -> ExportedProgram:
    """Without what every node knows of its origin: lines of source, and the folders of this machine."""
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(name, None)
    return program


def _group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    """In float32 for half precision, whose squares overflow in a runtime that computes them as they are."""
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    weight, bias = (None if parameter is None else parameter.to(precise.dtype) for parameter in (weight, bias))
    batch, channels, *sides = x.shape
    sizes = batch, channels, math.prod(sides), groups
    return torch.native_group_norm(precise.contiguous(), weight, bias, *sizes, eps)[0].to(x.dtype)
