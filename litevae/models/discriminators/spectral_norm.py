"""Spectral normalization of the discriminator: weights are divided by their largest singular value.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks". What is computed, and the state, are
those of torch.nn.utils.parametrizations.spectral_norm, which reads a weight about twice as often, and copies one in
channels_last: 4 % of a whole update of training, measured on a CPU at a batch of 2.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

_FIRST_ITERATIONS = 15


def spectral_norm(convolution: nn.Conv2d) -> nn.Conv2d:
    """Make `convolution.weight` its own value divided by its largest singular value, as a matrix [out, in * k * k].

    >>> convolution = spectral_norm(nn.Conv2d(3, 8, 3))
    >>> singular_values = torch.linalg.svdvals(convolution.weight.flatten(1))
    >>> bool((singular_values[0] - 1).abs() < 0.2)
    True
    """
    register_parametrization(convolution, "weight", SpectralNorm(convolution.weight))
    return convolution


class SpectralNorm(nn.Module):
    """A parametrization of a weight [O, I, k, k], with estimates of its singular vectors u [O] and v [I * k * k].

    Each forward pass in training improves the estimates by one power iteration. To the gradient they are constants.
    To be read outside of autocast: in half precision singular values would be wrong in the third digit.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        for name, count in (("_u", len(weight)), ("_v", weight[0].numel())):
            self.register_buffer(name, F.normalize(weight.new_empty(count).normal_(), dim=0))
        self.n_power_iterations = _FIRST_ITERATIONS
        self(weight)
        self.n_power_iterations = 1

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            matrix, u = _matrix(weight), self._u.clone()  # the buffers may change before the backward pass
            v = _matrix(self._v.clone().view(1, *weight.shape[1:])).flatten()  # [k * k * I]
            iterations = self.n_power_iterations if self.training else 0
            sigma = u @ (matrix @ v) if iterations == 0 else None
            for _ in range(iterations):
                u = F.normalize(matrix @ v, dim=0)
                product = matrix.t() @ u
                v, sigma = F.normalize(product, dim=0), product.norm()  # sigma is u W v, without a pass for it
            if iterations:
                self._u.copy_(u)
                self._v.copy_(_tensor(v, weight).flatten())
        divided: Tensor = _Divided.apply(weight, u, v, sigma)
        return divided


class _Divided(torch.autograd.Function):
    """weight / sigma, where d sigma = u dW v: the gradient without autograd's further passes over the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        divided = weight / sigma
        ctx.save_for_backward(divided, u, v, sigma)
        return divided

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        divided, u, v, sigma = ctx.saved_tensors
        rows = _matrix(gradient)
        along = rows.flatten() @ _matrix(divided).flatten()  # how much the gradient only stretches the weight
        return _tensor((rows / sigma).addr_(u * (-along / sigma), v), divided), None, None, None


def _matrix(weight: Tensor) -> Tensor:
    """[O, I, k, k] -> [O, k * k * I]: a view of a weight in channels_last."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _tensor(matrix: Tensor, like: Tensor) -> Tensor:
    """`_matrix` backwards, to channels_last: [O, k * k * I] -> [O, I, k, k], or a vector -> [1, I, k, k]."""
    _, in_channels, height, width = like.shape
    return matrix.view(-1, height, width, in_channels).permute(0, 3, 1, 2)
