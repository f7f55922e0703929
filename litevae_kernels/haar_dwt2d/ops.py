"""How does PyTorch know the Haar DWT? torch.library schemas, fakes and autograd.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses

Four operators, pairwise transposes, so that derivatives of any order stay among them:

    haar_dwt2d <-> haar_dwt2d_backward          haar_idwt2d <-> haar_idwt2d_backward
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from litevae_kernels.backends import implementation
from litevae_kernels.conventions import memory_format_of
from litevae_kernels.haar_dwt2d.reference import level_sizes

_library = torch.library.Library("litevae_kernels", "FRAGMENT")
_library.define("haar_dwt2d(Tensor image, int levels, float factor, ScalarType dtype, str? backend) -> Tensor[]")
_library.define(
    "haar_dwt2d_backward(Tensor[] grads, SymInt height, SymInt width, float factor, ScalarType dtype, str? backend)"
    " -> Tensor"
)
_library.define("haar_idwt2d(Tensor[] pyramid, SymInt height, SymInt width, float factor, str? backend) -> Tensor")
_library.define("haar_idwt2d_backward(Tensor grad, int levels, float factor, str? backend) -> Tensor[]")

haar_dwt2d = torch.ops.litevae_kernels.haar_dwt2d.default
haar_dwt2d_backward = torch.ops.litevae_kernels.haar_dwt2d_backward.default
haar_idwt2d = torch.ops.litevae_kernels.haar_idwt2d.default
haar_idwt2d_backward = torch.ops.litevae_kernels.haar_idwt2d_backward.default


# What runs. CompositeExplicitAutograd: one entry for every device; the backend is chosen here, out of any trace.


def run_haar_dwt2d(image: Tensor, levels: int, factor: float, dtype: torch.dtype, backend: str | None) -> list[Tensor]:
    return implementation("haar_dwt2d", backend, image).analysis(image, levels, factor, dtype)


def _haar_dwt2d_backward(
    grads: Sequence[Tensor], height: int, width: int, factor: float, dtype: torch.dtype, backend: str | None
) -> Tensor:
    synthesis = implementation("haar_dwt2d", backend, grads[0]).synthesis
    return synthesis(grads, height, width, factor, dtype, transpose_of_analysis=True)


def run_haar_idwt2d(pyramid: Sequence[Tensor], height: int, width: int, factor: float, backend: str | None) -> Tensor:
    synthesis = implementation("haar_dwt2d", backend, pyramid[0]).synthesis
    return synthesis(pyramid, height, width, factor, pyramid[0].dtype)


def _haar_idwt2d_backward(grad: Tensor, levels: int, factor: float, backend: str | None) -> list[Tensor]:
    analysis = implementation("haar_dwt2d", backend, grad).analysis
    return analysis(grad, levels, factor, grad.dtype, transpose_of_synthesis=True)


# What torch.compile sees: shapes, dtypes and memory formats.


def _fake_analysis(image: Tensor, levels: int, dtype: torch.dtype) -> list[Tensor]:
    batch, channels, height, width = image.shape
    memory_format = memory_format_of(image)
    return [
        torch.empty(batch, 4 * channels, h, w, dtype=dtype, device=image.device, memory_format=memory_format)
        for h, w in level_sizes(height, width, levels)[1:]
    ]


def _fake_synthesis(pyramid: Sequence[Tensor], height: int, width: int, dtype: torch.dtype) -> Tensor:
    batch, packed_channels = pyramid[0].shape[:2]
    return torch.empty(
        (batch, packed_channels // 4, height, width),
        dtype=dtype,
        device=pyramid[0].device,
        memory_format=memory_format_of(pyramid[0]),
    )


# Derivatives.


def _save_analysis(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    image, _, ctx.factor, _, ctx.backend = inputs
    (ctx.height, ctx.width), ctx.dtype = image.shape[-2:], image.dtype


def _analysis_gradient(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    gradient = haar_dwt2d_backward(grads, ctx.height, ctx.width, ctx.factor, ctx.dtype, ctx.backend)
    return gradient, None, None, None, None


def _save_analysis_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grads, _, _, ctx.factor, _, ctx.backend = inputs
    ctx.levels, ctx.dtype = len(grads), grads[0].dtype


def _analysis_backward_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return haar_dwt2d(grad, ctx.levels, ctx.factor, ctx.dtype, ctx.backend), None, None, None, None, None


def _save_synthesis(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pyramid, _, _, ctx.factor, ctx.backend = inputs
    ctx.levels = len(pyramid)


def _synthesis_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return haar_idwt2d_backward(grad, ctx.levels, ctx.factor, ctx.backend), None, None, None, None


def _save_synthesis_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, _, ctx.factor, ctx.backend = inputs
    ctx.height, ctx.width = grad.shape[-2:]


def _synthesis_backward_gradient(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    return haar_idwt2d(grads, ctx.height, ctx.width, ctx.factor, ctx.backend), None, None, None


def _register(name: str, run: Any, fake: Any, gradient: Any, save: Any) -> None:
    qualified_name = f"litevae_kernels::{name}"
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(qualified_name, fake, lib=_library)
    torch.library.register_autograd(qualified_name, gradient, setup_context=save, lib=_library)


_register(
    "haar_dwt2d",
    run_haar_dwt2d,
    lambda image, levels, factor, dtype, backend: _fake_analysis(image, levels, dtype),
    _analysis_gradient,
    _save_analysis,
)
_register(
    "haar_dwt2d_backward",
    _haar_dwt2d_backward,
    lambda grads, height, width, factor, dtype, backend: _fake_synthesis(grads, height, width, dtype),
    _analysis_backward_gradient,
    _save_analysis_backward,
)
_register(
    "haar_idwt2d",
    run_haar_idwt2d,
    lambda pyramid, height, width, factor, backend: _fake_synthesis(pyramid, height, width, pyramid[0].dtype),
    _synthesis_gradient,
    _save_synthesis,
)
_register(
    "haar_idwt2d_backward",
    _haar_idwt2d_backward,
    lambda grad, levels, factor, backend: _fake_analysis(grad, levels, grad.dtype),
    _synthesis_backward_gradient,
    _save_synthesis_backward,
)
