"""The self-modulated weight as an operator of PyTorch: schemas, shapes for torch.compile, and autograd.

The convolution is PyTorch's own. Only the weight of Eq. 3 and its gradients are operators of this package.
"""

from typing import Any

import torch
from torch import Tensor

from litevae_kernels.dispatch import define, run
from litevae_kernels.formats import memory_format_of
from litevae_kernels.smc_conv2d import reference


def _fake(weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    return torch.empty(weight.shape, dtype=dtype, device=weight.device, memory_format=memory_format_of(weight))


def _fake_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    weight_grad = torch.empty_like(weight, memory_format=memory_format_of(weight))
    gain_grad = weight.new_empty(()) if gain is None else torch.empty_like(gain)
    return weight_grad, torch.empty_like(scales), gain_grad


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    weight, scales, gain, ctx.eps, _, ctx.backend = inputs
    ctx.save_for_backward(weight, scales, gain)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    weight, scales, gain = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph: this gradient will itself be differentiated
        gradients = reference.smc_weight_backward(grad, weight, scales, gain, ctx.eps)
    else:
        gradients = run(smc_weight_backward, ctx.backend, grad, weight, scales, gain, ctx.eps)
    weight_grad, scales_grad, gain_grad = gradients
    return weight_grad, scales_grad, None if gain is None else gain_grad, None, None, None


smc_weight = define(
    "smc_conv2d",
    "smc_weight(Tensor weight, Tensor scales, Tensor? gain, float eps, ScalarType dtype, str? backend) -> Tensor",
    lambda module, *arguments: module.smc_weight(*arguments),
    _fake,
    _gradient,
    _save,
)
smc_weight_backward = define(
    "smc_conv2d",
    "smc_weight_backward(Tensor grad, Tensor weight, Tensor scales, Tensor? gain, float eps, str? backend)"
    " -> (Tensor, Tensor, Tensor)",
    lambda module, *arguments: module.smc_weight_backward(*arguments),
    _fake_backward,
)
