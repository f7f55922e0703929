"""The C++ backend of GroupNorm+SiLU: allocates the results and passes pointers to csrc/group_norm_silu/cpu_*.cpp."""

import torch
from torch import Tensor

from litevae_kernels import native
from litevae_kernels.formats import memory_format_of
from litevae_kernels.group_norm_silu.results import empty_gradients, empty_results


def group_norm_silu(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, skip: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu`; x and skip are copied where they are not dense in x's memory format."""
    output, mean, rstd = empty_results(x, num_groups, skip)
    if output.numel() == 0:
        return output, mean.fill_(0), rstd.fill_(eps**-0.5)
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
    gradients = empty_gradients(x, weight, bias, skip)
    x_grad, weight_grad, bias_grad, skip_grad = gradients
    weight_sums, bias_sums = mean.new_zeros(grad.shape[1]), mean.new_zeros(grad.shape[1])
    if grad.numel() > 0:
        grad = grad.to(x.dtype).contiguous(memory_format=memory_format_of(x))
        outputs = (x_grad, grad, skip_grad, weight_sums, bias_sums)
        mean, rstd = mean.contiguous(), rstd.contiguous()
        _call("litevae_group_norm_silu_backward", x, weight, bias, mean, rstd, skip, outputs, 0.0)
    if weight is not None:
        weight_grad.copy_(weight_sums)
    if bias is not None:
        bias_grad.copy_(bias_sums)
    return gradients


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
