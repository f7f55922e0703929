"""GroupNorm+SiLU as an operator of PyTorch: schemas, shapes for torch.compile, and autograd.

The forward also returns mean and rstd [B, G], which only its own backward reads. Gradients are in the order of the
arguments: x, weight, bias, skip.
"""

from typing import Any

import torch
from torch import Tensor

from litevae_kernels.dispatch import define, run
from litevae_kernels.group_norm_silu import reference
from litevae_kernels.group_norm_silu.results import empty_gradients, empty_results


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, ctx.num_groups, weight, bias, ctx.eps, skip, ctx.backend = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)  # no zeros in place of the gradients of mean and rstd, which have none
    ctx.save_for_backward(x, weight, bias, mean, rstd, skip)


def _gradient(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 7
    x, weight, bias, mean, rstd, skip = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph: this gradient will itself be differentiated, mean and rstd included
        mean, rstd = reference.statistics(x, ctx.num_groups, ctx.eps, skip)
        gradients = reference.group_norm_silu_backward(grad, x, ctx.num_groups, weight, bias, mean, rstd, skip)
    else:
        arguments = grad, x, ctx.num_groups, weight, bias, mean, rstd, skip
        gradients = run(group_norm_silu_backward, ctx.backend, *arguments)
    x_grad, weight_grad, bias_grad, skip_grad = gradients
    return (
        x_grad,
        None,
        None if weight is None else weight_grad,
        None if bias is None else bias_grad,
        None,
        None if skip is None else skip_grad,
        None,
    )


group_norm_silu = define(
    "group_norm_silu",
    "group_norm_silu(Tensor x, int num_groups, Tensor? weight, Tensor? bias, float eps, Tensor? skip, str? backend)"
    " -> (Tensor, Tensor, Tensor)",
    lambda module, *arguments: module.group_norm_silu(*arguments),
    lambda x, num_groups, weight, bias, eps, skip: empty_results(x, num_groups, skip),
    _gradient,
    _save,
    inference=lambda module, *arguments: module.group_norm_silu(*arguments, keeps_statistics=False),
)
group_norm_silu_backward = define(
    "group_norm_silu",
    "group_norm_silu_backward(Tensor grad, Tensor x, int num_groups, Tensor? weight, Tensor? bias, Tensor mean,"
    " Tensor rstd, Tensor? skip, str? backend) -> (Tensor, Tensor, Tensor, Tensor)",
    lambda module, *arguments: module.group_norm_silu_backward(*arguments),
    lambda grad, x, num_groups, weight, bias, mean, rstd, skip: empty_gradients(x, weight, bias, skip),
)
