"""How does PyTorch know the self-modulated weight? torch.library schemas, fakes and autograd.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses

The convolution itself is PyTorch's; only the weight of Eq. 3 and its gradient are operators of ours.
"""

from typing import Any

import torch
from torch import Tensor

from litevae_kernels.backends import implementation
from litevae_kernels.conventions import memory_format_of
from litevae_kernels.smc_conv2d import reference

_library = torch.library.Library("litevae_kernels", "FRAGMENT")
_library.define(
    "smc_weight(Tensor weight, Tensor scales, Tensor? gain, float eps, ScalarType dtype, str? backend) -> Tensor"
)
_library.define(
    "smc_weight_backward(Tensor grad, Tensor weight, Tensor scales, Tensor? gain, float eps, str? backend)"
    " -> (Tensor, Tensor, Tensor)"
)

smc_weight = torch.ops.litevae_kernels.smc_weight.default
smc_weight_backward = torch.ops.litevae_kernels.smc_weight_backward.default


def run_smc_weight(
    weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype, backend: str | None
) -> Tensor:
    return implementation("smc_conv2d", backend, weight).smc_weight(weight, scales, gain, eps, dtype)


def _smc_weight_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    return implementation("smc_conv2d", backend, weight).smc_weight_backward(grad, weight, scales, gain, eps)


def _fake_smc_weight(
    weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, dtype: torch.dtype, backend: str | None
) -> Tensor:
    return torch.empty(weight.shape, dtype=dtype, device=weight.device, memory_format=memory_format_of(weight))


def _fake_smc_weight_backward(
    grad: Tensor, weight: Tensor, scales: Tensor, gain: Tensor | None, eps: float, backend: str | None
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
        gradients = smc_weight_backward(grad, weight, scales, gain, ctx.eps, ctx.backend)
    weight_grad, scales_grad, gain_grad = gradients
    return weight_grad, scales_grad, None if gain is None else gain_grad, None, None, None


_library.impl("smc_weight", run_smc_weight, "CompositeExplicitAutograd")
_library.impl("smc_weight_backward", _smc_weight_backward, "CompositeExplicitAutograd")
torch.library.register_fake("litevae_kernels::smc_weight", _fake_smc_weight, lib=_library)
torch.library.register_fake("litevae_kernels::smc_weight_backward", _fake_smc_weight_backward, lib=_library)
torch.library.register_autograd("litevae_kernels::smc_weight", _gradient, setup_context=_save, lib=_library)
