"""How a trained model runs in less memory, or faster: slices of a batch, folded weights, a copy made for inference.

Tiles and streams of rows, for large images, are in tiling/.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

from litevae.checks import in_dtype_of
from litevae.config import LiteVAEConfig
from litevae.models.blocks import SMConv2d
from litevae.models.cuda_graphs import CudaGraphs
from litevae.models.decoder import Decoder
from litevae.models.encoder import AnyEncoder, build_encoder
from litevae.models.pretrained import without_compiled_wrappers
from litevae.models.tiling.large_images import LargeImages
from litevae.models.tiling.memory import Build, bytes_per_sample
from litevae.models.tiling.streaming import RowStreams
from litevae_kernels.checks import FLOATING_DTYPES, check_int, wrong_kind, wrong_value
from litevae_kernels.precision import warn_where_emulated

if TYPE_CHECKING:
    from typing import Self  # Python 3.11


class Slicing:
    """How many samples of a batch are worked on at once: `slice_size`, or as many as `memory_budget` bytes allow."""

    def __init__(self, slice_size: int | None, memory_budget: int | None) -> None:
        if slice_size is not None and memory_budget is not None:
            rule = "be left out where slice_size is given: one of them says how many samples go at once"
            raise wrong_value("memory_budget", rule, memory_budget)
        for name, value in (("slice_size", slice_size), ("memory_budget", memory_budget)):
            if value is not None:
                check_int(name, value, at_least=1)
        self.slice_size, self.memory_budget = slice_size, memory_budget

    @torch.compiler.disable  # what calls it is not traced then, but its parts are: the slices are not unrolled
    def slices(
        self, batch: Tensor, part: AnyEncoder | Decoder, build: Build, dtype: torch.dtype, config: LiteVAEConfig
    ) -> tuple[Tensor, ...]:
        """`batch` split into slices that fit, at least one, for `part`, as `build` makes one, or a wrapper of it.

        `dtype`: of the weights, which pixels of 8 bits are worked on in.
        """
        part.check(batch)
        size = self.slice_size or 1
        if self.memory_budget is not None:
            dtype = batch.dtype if batch.dtype in FLOATING_DTYPES else dtype
            size = max(1, self.memory_budget // bytes_per_sample(build, config, *batch.shape[-2:], dtype))
        return batch.split(size)


class Serving(LargeImages, RowStreams):
    """What `LiteVAE` does for inference, beside encoding and decoding."""

    encoder: AnyEncoder
    decoder: Decoder
    slicing: Slicing | None = None
    _clones_results = False  # a CUDA graph of torch.compile writes every result to the same memory
    _graphs: dict[nn.Module, Callable[[Tensor], Tensor]] | None = None

    @property
    def architecture(self) -> LiteVAEConfig:
        raise NotImplementedError

    def _run(self, part: AnyEncoder | Decoder, batch: Tensor) -> Tensor:
        """part(batch) in the dtype of the weights, slice by slice if slicing is enabled."""
        batch = in_dtype_of(self, batch)
        slices: tuple[Tensor, ...] = (batch,)
        build = build_encoder if part is self.encoder else Decoder
        slicing = self.slicing
        if slicing is None and self.tiling is not None and self.tiling.memory_budget is not None:
            slicing = Slicing(None, self.tiling.memory_budget)
        if slicing is not None:
            slices = slicing.slices(batch, part, build, next(self.parameters()).dtype, self.architecture)
        results = []
        for samples in slices:  # a comprehension would be traced by itself, with all slices in one graph
            result = None if self.tiling is None else self._tiled(part, build, samples)
            if result is None:
                result = part(samples) if self._graphs is None else self._graphs.get(part, part)(samples)
                result = result.clone() if self._clones_results else result
            results.append(result)
        return results[0] if len(results) == 1 else torch.cat(results)

    def enable_slicing(self, slice_size: int | None = None, *, memory_budget: int | None = None) -> None:
        """Encode and decode a batch slice by slice, with the same result in less memory, until `disable_slicing`.

        Under torch.compile a slice is a graph of its own, made once for every size of batch.

        Args:
            slice_size: samples at once; None, without a budget: 1, as in diffusers.
            memory_budget: bytes that the activations of one slice may take without gradients; the most samples that
                fit are taken at once, and at least 1. Parameters, the batch and twice its results come on top, and
                what an allocator rounds.

        Raises:
            TypeError, ValueError: no int, or less than 1, or both given.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16))
        >>> model.enable_slicing(memory_budget=2**30)
        """
        self.slicing = Slicing(slice_size, memory_budget)

    def disable_slicing(self) -> None:
        """Encode and decode a batch at once again."""
        self.slicing = None

    @property
    def use_slicing(self) -> bool:
        """Whether slicing is enabled; may be set, as of AutoencoderKL."""
        return self.slicing is not None

    @use_slicing.setter
    def use_slicing(self, enabled: bool) -> None:
        if enabled != self.use_slicing:
            self.slicing = Slicing(None, None) if enabled else None

    def set_attn_processor(self, processor: Any) -> None:
        """Refused, but for what the decoder's attention always is: `AttnProcessor2_0`, or an empty dict."""
        if processor != {} and not isinstance(processor, AttnProcessor2_0):
            rule = "be an AttnProcessor2_0 (torch's scaled_dot_product_attention, which the decoder always uses)"
            raise wrong_kind("processor", rule, processor, "to choose its kernel, call the model within sdpa_kernel()")

    def set_default_attn_processor(self) -> None:
        """Nothing: the decoder's attention is always the default, scaled_dot_product_attention."""

    def fuse_qkv_projections(self) -> NoReturn:
        """Refused: the decoder's one attention has three projections."""
        raise NotImplementedError(
            "the projections of a LiteVAE's attention cannot be fused; leave the call out, the result is the same"
        )

    def fold_smc(self) -> Self:
        """A new model with plain convolutions in place of the self-modulated ones, and the same output.

        Raises:
            ValueError: neither encoder nor decoder has any.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16), decoder_normalization="smc")
        >>> model.fold_smc().config.decoder_normalization
        'none'
        """
        config = self.architecture
        if not config.has_smc:
            rule = "be 'smc' for fold_smc() to have something to fold"
            raise wrong_value("decoder_normalization or encoder_normalization", rule, config.decoder_normalization)
        with without_compiled_wrappers(self):
            state = {name: tensor.clone() for name, tensor in self.state_dict().items()}
            for name, module in self.named_modules():
                if isinstance(module, SMConv2d):
                    state[f"{name}.weight"] = module.folded_weight().detach()
                    del state[f"{name}.scales"], state[f"{name}.gain"]
        parts = ("encoder_normalization", "decoder_normalization")
        plain: dict[str, Any] = {part: "none" for part in parts if getattr(config, part) == "smc"}
        folded = dataclasses.replace(config, **plain, decoder_outer_norm=config.has_outer_norm)
        with torch.device("meta"):
            model = type(self)(**dataclasses.asdict(folded))
        model.load_state_dict(state, assign=True)
        model.slicing, model.tiling, model._tiling = self.slicing, self.tiling, self._tiling
        return cast(Any, model.train(self.training)).to(memory_format=torch.channels_last)

    def optimize_for_inference(
        self, dtype: torch.dtype | None = None, compile: bool = False, cuda_graph: bool = False
    ) -> Self:
        """A new model for inference alone: eval, without gradients, self-modulated convolutions folded.

        The result is that of this model, up to rounding. What costs nothing (channels_last, fused operators) `encode`
        and `decode` do anyway; the arguments ask for what changes precision, or takes time at the first call.

        Args:
            dtype: of the parameters; None keeps them. torch.bfloat16 halves the memory, is faster where the hardware
                multiplies it, and moves the latent by a few per cent of its norm. A CPU that only emulates it warns.
            compile: torch.compile encoder and decoder; the first call of an image size takes a minute or more. (The
                name hides Python's `compile` inside this function alone, which does not use it.)
            cuda_graph: replay the kernels recorded at the first call of a kind of batch (shape, dtype, memory format),
                which saves their launches: for small batches on a GPU. Encoder and decoder each keep the latest 8
                kinds: a batch and a result of each, and activations for the largest. With `compile`, torch.compile's
                own CUDA graphs.

        Raises:
            TypeError: dtype is no floating-point torch.dtype. ValueError: cuda_graph without a CUDA device.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16), decoder_normalization="smc")
        >>> fast = model.optimize_for_inference(dtype=torch.bfloat16)
        >>> fast.dtype, fast.config.decoder_normalization
        (torch.bfloat16, 'none')
        """
        if dtype is not None and dtype not in FLOATING_DTYPES:
            raise wrong_kind("dtype", "be torch.bfloat16, float16, float32 or float64", dtype)
        if cuda_graph and next(self.parameters()).device.type != "cuda":
            rule = "be False for a model that is not on a CUDA device"
            raise wrong_value("cuda_graph", rule, cuda_graph, "move the model first with model.cuda()")
        fast = self.fold_smc() if self.architecture.has_smc else copy.deepcopy(self)
        fast.eval().requires_grad_(False)
        if dtype is not None:
            warn_where_emulated(dtype, next(self.parameters()).device.type)
            fast.to(dtype=dtype)
        parts: tuple[nn.Module, ...] = (fast.encoder, fast.decoder)
        if compile:
            for part in parts:
                part.compile(mode="reduce-overhead" if cuda_graph else None)
            fast._clones_results = cuda_graph
        elif cuda_graph:
            fast._graphs = {part: CudaGraphs(part) for part in parts}
        return fast
