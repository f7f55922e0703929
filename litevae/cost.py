"""What does a network cost? Parameters and arithmetic, counted on any device, also on meta tensors, which need none.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses   (any stage)
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def multiply_accumulates(function: Callable[..., object], *inputs: Tensor) -> int:
    """Multiply-accumulates of the convolutions and matrix products, attention's among them, in `function(*inputs)`.

    torch.utils.flop_counter counts two operations for each. Meta tensors do.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function(*inputs)
    return counter.get_total_flops() // 2


def parameter_count(*modules: nn.Module | None) -> int:
    """Numbers in the parameters of all `modules`; None has none."""
    return sum(parameter.numel() for module in modules if module is not None for parameter in module.parameters())
