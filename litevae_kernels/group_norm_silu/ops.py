"""How does PyTorch know GroupNorm+SiLU? torch.library schemas, fakes and autograd.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

The forward also hands out mean and rstd [B, G], which only its own backward reads.
"""

from typing import Any

import torch
from torch import Tensor

from litevae_kernels.backends import implementation
from litevae_kernels.conventions import arithmetic_dtype, memory_format_of
from litevae_kernels.group_norm_silu import reference

_library = torch.library.Library("litevae_kernels", "FRAGMENT")
_library.define(
    "group_norm_silu(Tensor x, Tensor? skip, int num_groups, Tensor? weight, Tensor? bias, float eps, str? backend)"
    " -> (Tensor, Tensor, Tensor)"
)
_library.define(
    "group_norm_silu_backward(Tensor grad, Tensor x, Tensor? skip, int num_groups, Tensor? weight, Tensor? bias,"
    " Tensor mean, Tensor rstd, str? backend) -> (Tensor, Tensor, Tensor, Tensor)"
)

group_norm_silu = torch.ops.litevae_kernels.group_norm_silu.default
group_norm_silu_backward = torch.ops.litevae_kernels.group_norm_silu_backward.default


def run_group_norm_silu(
    x: Tensor,
    skip: Tensor | None,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    module = implementation("group_norm_silu", backend, x)
    return module.group_norm_silu(x, skip, num_groups, weight, bias, eps)


def _group_norm_silu_backward(
    grad: Tensor,
    x: Tensor,
    skip: Tensor | None,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    module = implementation("group_norm_silu", backend, x)
    return module.group_norm_silu_backward(grad, x, skip, num_groups, weight, bias, mean, rstd)


def _fake_group_norm_silu(
    x: Tensor,
    skip: Tensor | None,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, height, width = x.shape
    if skip is not None:
        channels = channels + skip.shape[1]
    shape = (batch, channels, height, width)
    output = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    mean = x.new_empty((batch, num_groups), dtype=arithmetic_dtype(x.dtype))
    return output, mean, torch.empty_like(mean)


def _fake_group_norm_silu_backward(
    grad: Tensor,
    x: Tensor,
    skip: Tensor | None,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    memory_format = memory_format_of(x)
    return (
        torch.empty_like(x, memory_format=memory_format),
        x.new_empty(0) if skip is None else torch.empty_like(skip, memory_format=memory_format),
        x.new_empty(0) if weight is None else torch.empty_like(weight, memory_format=torch.contiguous_format),
        x.new_empty(0) if bias is None else torch.empty_like(bias, memory_format=torch.contiguous_format),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, skip, ctx.num_groups, weight, bias, ctx.eps, ctx.backend = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)  # mean and rstd have none: no zeros for them
    ctx.save_for_backward(x, skip, weight, bias, mean, rstd)


def _gradient(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 7
    x, skip, weight, bias, mean, rstd = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph: this gradient will itself be differentiated, mean and rstd included
        mean, rstd = reference.statistics(x, skip, ctx.num_groups, ctx.eps)
        gradients = reference.group_norm_silu_backward(grad, x, skip, ctx.num_groups, weight, bias, mean, rstd)
    else:
        gradients = group_norm_silu_backward(
            grad, x, skip, ctx.num_groups, weight, bias, mean, rstd, ctx.backend
        )  # fmt: skip
    x_grad, skip_grad, weight_grad, bias_grad = gradients
    return (
        x_grad,
        None if skip is None else skip_grad,
        None,
        None if weight is None else weight_grad,
        None if bias is None else bias_grad,
        None,
        None,
    )


_library.impl("group_norm_silu", run_group_norm_silu, "CompositeExplicitAutograd")
_library.impl("group_norm_silu_backward", _group_norm_silu_backward, "CompositeExplicitAutograd")
torch.library.register_fake("litevae_kernels::group_norm_silu", _fake_group_norm_silu, lib=_library)
torch.library.register_fake("litevae_kernels::group_norm_silu_backward", _fake_group_norm_silu_backward, lib=_library)
torch.library.register_autograd("litevae_kernels::group_norm_silu", _gradient, setup_context=_save, lib=_library)
