"""The C++ backend of GroupNorm+SiLU: allocates the results and passes pointers to csrc/group_norm_silu/cpu_*.cpp."""

import torch
from torch import Tensor

from litevae_kernels import native
from litevae_kernels.formats import arithmetic_dtype, dense, memory_format_of
from litevae_kernels.group_norm_silu.results import Results, empty_gradients, empty_results, fill_without_elements


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    skip: Tensor | None,
    keeps_statistics: bool = True,
) -> Results:
    """As `reference.group_norm_silu`; x and skip are copied where they are not dense in x's memory format."""
    output, mean, rstd = results = empty_results(x, num_groups, skip, keeps_statistics)
    if output.numel() == 0:
        return fill_without_elements(results, eps)
    outputs = (mean, rstd, output, None, None, None, None)
    _call("litevae_group_norm_silu", x, num_groups, weight, bias, skip, outputs, eps)
    return results


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
    if grad.numel() == 0:
        weight_grad.zero_()
        bias_grad.zero_()
        return gradients
    memory_format = memory_format_of(x)
    if grad.dtype != x.dtype or not grad.is_contiguous(memory_format=memory_format):
        grad = grad.to(x.dtype).contiguous(memory_format=memory_format)
    # Sums in the dtype of the arithmetic: the gradients themselves where that is theirs.
    weight_sums = weight_grad if weight_grad.dtype == mean.dtype else torch.empty_like(weight_grad, dtype=mean.dtype)
    bias_sums = bias_grad if bias_grad.dtype == mean.dtype else torch.empty_like(bias_grad, dtype=mean.dtype)
    outputs = (
        mean.contiguous(),
        rstd.contiguous(),
        x_grad,
        grad,
        None if skip is None else skip_grad,
        None if weight is None else weight_sums,
        None if bias is None else bias_sums,
    )
    _call("litevae_group_norm_silu_backward", x, num_groups, weight, bias, skip, outputs, 0.0)
    if weight_sums is not weight_grad:
        weight_grad.copy_(weight_sums)
    if bias_sums is not bias_grad:
        bias_grad.copy_(bias_sums)
    return gradients


def _call(
    function: str,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    skip: Tensor | None,
    outputs: tuple[Tensor | None, ...],
    eps: float,
) -> None:
    """Fills the struct GroupNormArguments; `outputs` are its pointers from `mean` on."""
    memory_format, arithmetic = memory_format_of(x), arithmetic_dtype(x.dtype)
    batch, channels, height, width = x.shape
    pixels, skip_channels = height * width, 0
    # Copies must live until the call is over: names, not temporaries.
    x = x.contiguous(memory_format=memory_format)
    if skip is not None:
        skip, skip_channels = skip.contiguous(memory_format=memory_format), skip.shape[1]
    weight = None if weight is None else dense(weight, arithmetic)
    bias = None if bias is None else dense(bias, arithmetic)
    native.call(
        function,
        "11P8qd",
        *[0 if tensor is None else tensor.data_ptr() for tensor in (x, skip, weight, bias, *outputs)],
        native.DTYPE_CODES[x.dtype],
        memory_format == torch.channels_last or pixels == 1,  # the same layout for one pixel, and the faster path
        batch,
        channels,
        skip_channels,
        num_groups,
        pixels,
        native.threads_for(x.numel()),
        eps,
    )
