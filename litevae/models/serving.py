"""How does a trained model run in less memory, or faster? Slices of the batch, and a copy prepared for inference.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from litevae.config import LiteVAEConfig
from litevae.memory import peak_tensor_bytes
from litevae.models.decoder import Decoder
from litevae.models.encoder import Encoder
from litevae_kernels.checks import FLOATING_DTYPES, check_int, wrong_kind, wrong_value

if TYPE_CHECKING:
    from litevae.models.litevae import LiteVAE


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

    def slices(
        self, batch: Tensor, kind: type[Encoder | Decoder], config: LiteVAEConfig, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """`batch` as the encoder or decoder (`kind`) with parameters of `dtype` should have it; at least one slice."""
        size = self.slice_size or 1
        if self.memory_budget is not None:
            size = max(1, self.memory_budget // bytes_per_sample(cast(Any, kind), config, *batch.shape[-2:], dtype))
        return batch.split(size)


@functools.lru_cache(maxsize=64)
def bytes_per_sample(
    kind: type[Encoder | Decoder], config: LiteVAEConfig, height: int, width: int, dtype: torch.dtype
) -> int:
    """Most bytes of tensors alive at once, per sample of [B, C, height, width], without gradients or autocast."""
    with _disable_current_modes(), torch.device("meta"), torch.no_grad():  # no caller's counter sees these tensors
        part = kind(config).to(dtype).eval()
        channels = config.in_channels if kind is Encoder else config.latent_channels
        one, two = (peak_tensor_bytes(part, torch.empty(n, channels, height, width, dtype=dtype)) for n in (1, 2))
    return two - one


def optimized(model: LiteVAE, dtype: torch.dtype | None, compile: bool, cuda_graph: bool) -> LiteVAE:
    """As `LiteVAE.optimize_for_inference`."""
    if dtype is not None and dtype not in FLOATING_DTYPES:
        raise wrong_kind("dtype", "be torch.bfloat16, float16, float32 or float64", dtype)
    if cuda_graph and model.device.type != "cuda":
        rule = "be False for a model that is not on a CUDA device"
        raise wrong_value("cuda_graph", rule, cuda_graph, "move the model first with model.cuda()")
    has_smc = model.architecture.decoder_normalization == "smc"
    fast: Any = model.fold_smc() if has_smc else copy.deepcopy(model)
    fast.eval().requires_grad_(False)
    if dtype is not None:
        fast.to(dtype=dtype)
    for part in (fast.encoder, fast.decoder) if compile or cuda_graph else ():
        part.compile(mode="reduce-overhead" if cuda_graph else None)
    fast.copies_outputs = cuda_graph
    return fast
