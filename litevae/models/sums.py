"""How does a convolution end up in a sum without a pass of its own for the sum? On a CPU, oneDNN adds while it writes.

image -> DWT -> [feature extraction -> aggregation] -> latent -> [decoder] -> losses

A ResBlock's x + conv2(...) and the two convolutions of its shortcut would each read two tensors again to add them.
torch.compile makes the same calls on its own. A sum is rounded once here, so bfloat16 loses less than in two steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DTYPES = (torch.float32, torch.bfloat16)
POINTWISE: tuple[object, ...] = ("add", 1.0, None, [], None)  # the sum, its factor; nothing after it


def adds(x: Tensor, weight: Tensor) -> bool:
    """Whether `add_convolution` can take conv2d(x, weight): who records or counts operations must see PyTorch's own."""
    return bool(
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and type(x) is Tensor
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in DTYPES
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
        and (x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


def is_plain(module: nn.Module | None, kind: type[nn.Module]) -> bool:
    """Whether nobody put another layer in its place, hooks it or wraps its `forward`, as accelerate does."""
    return type(module) is kind and not (
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    )


def add_convolution(
    term: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, in_place: bool
) -> Tensor:
    """term + conv2d(x, weight, bias, padding=padding), where `adds(x, weight)`; `in_place`: written over term."""
    arguments = weight, bias, [padding, padding], [1, 1], [1, 1], 1, *POINTWISE
    if in_place and term.is_contiguous(memory_format=torch.channels_last):
        return torch.ops.mkldnn._convolution_pointwise_.binary(term, x, *arguments)
    return torch.ops.mkldnn._convolution_pointwise.binary(x, term, *arguments)
