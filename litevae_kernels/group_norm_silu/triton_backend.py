"""The Triton backend of GroupNorm+SiLU: results allocated, inputs made dense, kernels launched.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

triton_plans.py divides the work.
"""

import torch
from torch import Tensor

from litevae_kernels.devices import on_device
from litevae_kernels.formats import arithmetic_dtype, memory_format_of
from litevae_kernels.group_norm_silu.results import Results, empty_gradients, empty_results, fill_without_elements
from litevae_kernels.group_norm_silu.triton_plans import Kind, backward_launches, forward_launches


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    skip: Tensor | None,
    keeps_statistics: bool = True,
) -> Results:
    """As `reference.group_norm_silu`; mean and rstd are None where they are not kept."""
    output, mean, rstd = results = empty_results(x, num_groups, skip, keeps_statistics)
    if output.numel() == 0:
        return fill_without_elements(results, eps)
    memory_format = memory_format_of(x)
    x, weight, bias, skip = _dense(memory_format, x, weight, bias, skip)
    launches = forward_launches(_kind_of(x, num_groups, weight, bias, skip, memory_format), eps, keeps_statistics)
    with on_device(x.get_device()):
        if launches.partials is None:
            launches.result(x, skip, weight, bias, output, mean, rstd)
        else:
            partials = x.new_empty(launches.workspace, dtype=arithmetic_dtype(x.dtype))
            launches.partials(x, skip, partials)
            launches.result(x, skip, weight, bias, output, mean, rstd, partials)
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
    x, weight, bias, skip = _dense(memory_format, x, weight, bias, skip)
    grad = grad.to(x.dtype).contiguous(memory_format=memory_format)
    mean, rstd = mean.contiguous(), rstd.contiguous()
    launches = backward_launches(_kind_of(x, num_groups, weight, bias, skip, memory_format))
    partials = mean.new_empty(launches.workspace)
    inputs, targets = (grad, x, skip, weight, bias, mean, rstd), (x_grad, None if skip is None else skip_grad)
    with on_device(x.get_device()):
        if launches.partials is not None:
            launches.partials(*inputs, partials)
        launches.result(*inputs, *targets, partials)
        if launches.parameters is not None:
            launches.parameters(partials, None if weight is None else weight_grad, None if bias is None else bias_grad)
    return gradients


def _kind_of(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    skip: Tensor | None,
    memory_format: torch.memory_format,
) -> Kind:
    return Kind(
        x.shape,
        0 if skip is None else skip.shape[1],
        num_groups,
        x.dtype,
        None if weight is None else weight.dtype,
        None if bias is None else bias.dtype,
        memory_format is torch.channels_last,
        x.get_device(),
    )


def _dense(
    memory_format: torch.memory_format, x: Tensor, weight: Tensor | None, bias: Tensor | None, skip: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    return (
        x.contiguous(memory_format=memory_format),
        None if weight is None else weight.contiguous(),
        None if bias is None else bias.contiguous(),
        None if skip is None else skip.contiguous(memory_format=memory_format),
    )
