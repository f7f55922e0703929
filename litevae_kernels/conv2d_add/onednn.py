"""`conv2d_add` on a CPU without gradients: oneDNN adds to the residual while it writes the convolution."""

import torch
from torch import Tensor
from torch.nn import Parameter

DTYPES = (torch.float32, torch.bfloat16)
POINTWISE: tuple[object, ...] = ("add", 1.0, None, [], None)  # the sum and its factor; no activation after it


def can_run(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN takes these tensors, and no gradient, compiler, transform or mode has to see PyTorch's calls."""
    return bool(
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and type(x) is type(residual) is Tensor
        and type(weight) in (Tensor, Parameter)  # no quantised one
        and not torch._C._are_functorch_transforms_active()
        and x.device.type == residual.device.type == weight.device.type == "cpu"
        and x.dtype == residual.dtype == weight.dtype == (weight if bias is None else bias).dtype
        and x.dtype in DTYPES
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        # One channel or one pixel is NCHW and NHWC at once: PyTorch 2.11 mixes them, "could not create a memory".
        and min(residual.shape[1], residual.shape[2:].numel()) > 1
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
        and (x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def conv2d_add(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """As `reference.conv2d_add`, where `can_run`."""
    arguments = weight, bias, list(padding), [1, 1], [1, 1], 1, *POINTWISE
    return torch.ops.mkldnn._convolution_pointwise.binary(x, residual, *arguments)
