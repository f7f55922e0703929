"""The C++ backend of GroupNorm+SiLU: allocates the results and passes pointers to csrc/group_norm_silu/cpu_*.cpp."""

import torch
from torch import Tensor

from litevae_kernels import native
from litevae_kernels.formats import arithmetic_dtype, memory_format_of


def group_norm_silu(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, skip: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu`; x and skip are copied where they are not dense in x's memory format."""
    memory_format, arithmetic = memory_format_of(x), arithmetic_dtype(x.dtype)
    batch, channels, height, width = x.shape
    if skip is not None:
        channels += skip.shape[1]
    output = torch.empty((batch, channels, height, width), dtype=x.dtype, memory_format=memory_format)
    if output.numel() == 0:
        mean = torch.zeros((batch, num_groups), dtype=arithmetic)
        return output, mean, torch.full_like(mean, eps**-0.5)
    mean, rstd = torch.empty((batch, num_groups), dtype=arithmetic), torch.empty((batch, num_groups), dtype=arithmetic)
    _call("litevae_group_norm_silu", x, weight, bias, mean, rstd, skip, (output, None, None, None, None), eps)
    return output, mean, rstd


def group_norm_silu_backward(
    grad: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu_backward`."""
    memory_format, arithmetic = memory_format_of(x), arithmetic_dtype(x.dtype)
    x_grad = torch.empty(x.shape, dtype=x.dtype, memory_format=memory_format)
    skip_grad = None if skip is None else torch.empty(skip.shape, dtype=x.dtype, memory_format=memory_format)
    weight_grad = torch.zeros(grad.shape[1], dtype=arithmetic)
    bias_grad = torch.zeros(grad.shape[1], dtype=arithmetic)
    if grad.numel() > 0:
        grad = grad.to(x.dtype).contiguous(memory_format=memory_format)
        outputs = (x_grad, grad, skip_grad, weight_grad, bias_grad)
        mean, rstd = mean.contiguous(), rstd.contiguous()
        _call("litevae_group_norm_silu_backward", x, weight, bias, mean, rstd, skip, outputs, 0.0)
    return (
        x_grad,
        x.new_empty(0) if weight is None else weight_grad.to(weight.dtype),
        x.new_empty(0) if bias is None else bias_grad.to(bias.dtype),
        x.new_empty(0) if skip_grad is None else skip_grad,
    )


def _call(
    function: str,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    skip: Tensor | None,
    others: tuple[Tensor | None, ...],
    eps: float,
) -> None:
    """Fills the struct GroupNormArguments; `others` are its pointers from `result` on."""
    memory_format = memory_format_of(x)
    batch, channels, height, width = x.shape
    pixels, skip_channels = height * width, 0
    x = x.contiguous(memory_format=memory_format)
    if skip is not None:
        skip, skip_channels = skip.contiguous(memory_format=memory_format), skip.shape[1]
    # Copies must live until the call is over: names, not temporaries.
    if weight is not None:
        weight = weight.to(mean.dtype).contiguous()
    if bias is not None:
        bias = bias.to(mean.dtype).contiguous()
    pointers = [0 if t is None else t.data_ptr() for t in (x, skip, weight, bias, mean, rstd, *others)]
    native.call(
        function,
        "11P8qd",
        *pointers,
        native.DTYPE_CODES[x.dtype],
        memory_format == torch.channels_last or pixels == 1,  # the same layout for one pixel, and the faster path
        batch,
        channels,
        skip_channels,
        mean.shape[1],
        pixels,
        native.threads_for(x.numel()),
        eps,
    )
