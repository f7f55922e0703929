"""The Haar DWT as operators of PyTorch: schemas, shapes for torch.compile, and autograd.

Four operators, pairwise transposes, so that derivatives of any order stay among them:

    haar_dwt2d <-> haar_dwt2d_backward          haar_idwt2d <-> haar_idwt2d_backward
"""

from typing import Any

import torch
from torch import Tensor

from litevae_kernels.dispatch import define, run
from litevae_kernels.haar_dwt2d.geometry import empty_image, empty_pyramid


def _save_analysis(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    image, _, ctx.factor, _, _, ctx.backend = inputs
    (ctx.height, ctx.width), ctx.dtype = image.shape[-2:], image.dtype


def _analysis_gradient(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    gradient = run(haar_dwt2d_backward, ctx.backend, grads, ctx.height, ctx.width, ctx.factor, ctx.dtype)
    return gradient, None, None, None, None, None


def _save_analysis_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grads, _, _, ctx.factor, _, ctx.backend = inputs
    ctx.levels, ctx.dtype = len(grads), grads[0].dtype


def _analysis_backward_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    second = run(haar_dwt2d, ctx.backend, grad, ctx.levels, ctx.factor, ctx.dtype, torch.preserve_format)
    return second, None, None, None, None, None


def _save_synthesis(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pyramid, _, _, ctx.factor, ctx.backend = inputs
    ctx.levels = len(pyramid)


def _synthesis_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return run(haar_idwt2d_backward, ctx.backend, grad, ctx.levels, ctx.factor), None, None, None, None


def _save_synthesis_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, _, ctx.factor, ctx.backend = inputs
    ctx.height, ctx.width = grad.shape[-2:]


def _synthesis_backward_gradient(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    return run(haar_idwt2d, ctx.backend, grads, ctx.height, ctx.width, ctx.factor), None, None, None


haar_dwt2d = define(
    "haar_dwt2d",
    "haar_dwt2d(Tensor image, int levels, float factor, ScalarType dtype, MemoryFormat memory_format, str? backend)"
    " -> Tensor[]",
    lambda module, *arguments: module.analysis(*arguments[:-1], memory_format=arguments[-1]),
    lambda image, levels, factor, dtype, memory_format: empty_pyramid(image, levels, dtype, memory_format),
    _analysis_gradient,
    _save_analysis,
)
haar_dwt2d_backward = define(
    "haar_dwt2d",
    "haar_dwt2d_backward(Tensor[] grads, SymInt height, SymInt width, float factor, ScalarType dtype, str? backend)"
    " -> Tensor",
    lambda module, *arguments: module.synthesis(*arguments, transpose=True),
    lambda grads, height, width, factor, dtype: empty_image(grads, height, width, dtype),
    _analysis_backward_gradient,
    _save_analysis_backward,
)
haar_idwt2d = define(
    "haar_dwt2d",
    "haar_idwt2d(Tensor[] pyramid, SymInt height, SymInt width, float factor, str? backend) -> Tensor",
    lambda module, pyramid, *arguments: module.synthesis(pyramid, *arguments, pyramid[0].dtype),
    lambda pyramid, height, width, factor: empty_image(pyramid, height, width, pyramid[0].dtype),
    _synthesis_gradient,
    _save_synthesis,
)
haar_idwt2d_backward = define(
    "haar_dwt2d",
    "haar_idwt2d_backward(Tensor grad, int levels, float factor, str? backend) -> Tensor[]",
    lambda module, grad, *arguments: module.analysis(grad, *arguments, grad.dtype, transpose=True),
    lambda grad, levels, factor: empty_pyramid(grad, levels, grad.dtype),
    _synthesis_backward_gradient,
    _save_synthesis_backward,
)
