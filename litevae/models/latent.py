"""The posterior of a latent: a Gaussian for each element, to be sampled and held near N(0, 1).

image -> DWT -> feature extraction -> aggregation -> [latent] -> decoder -> losses
"""

import math
from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from litevae_kernels.checks import check_flag, wrong_kind, wrong_value

LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0


class DiagonalGaussian(DiagonalGaussianDistribution):
    """The posterior q(z | image) = N(mean, exp(logvar)), element by element (section 3).

    It is diffusers' `DiagonalGaussianDistribution`, but half-precision moments are computed with in float32.

    Args:
        parameters: the moments [B, 2C, h, w], floating point, the encoder's output: mean, then log-variance.
        deterministic: whether std and var are 0: a sample is then the mean, and `kl` and `nll` are 0.

    Attributes:
        parameters: the moments as they came.
        mean, logvar, std, var: [B, C, h, w]; logvar is clamped to [-30, 20]. float32 (float64 for float64 moments),
            for in float16 exp(logvar) is infinite from 11.09 on.

    Raises:
        TypeError, ValueError: `parameters` is no such tensor.

    >>> posterior = DiagonalGaussian(torch.zeros(2, 8, 4, 4, dtype=torch.bfloat16))
    >>> posterior.mode().dtype, posterior.kl()
    (torch.bfloat16, tensor([0., 0.]))
    """

    def __init__(self, parameters: Tensor, deterministic: bool = False) -> None:
        if not isinstance(parameters, Tensor) or not parameters.dtype.is_floating_point:
            raise wrong_kind("parameters", "be a floating-point tensor [B, 2C, h, w]", parameters)
        if parameters.dim() != 4 or parameters.shape[1] % 2:
            rule = "have 4 dimensions [B, 2C, h, w] and an even number of channels"
            raise wrong_value("parameters", rule, parameters)
        check_flag("deterministic", deterministic)
        self.parameters, self.deterministic = parameters, deterministic
        precise = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        self.mean, logvar = precise.chunk(2, dim=1)  # [B, C, h, w] each
        self.logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)

    @property
    def std(self) -> Tensor:  # type: ignore[override]  # computed when asked for
        return torch.zeros_like(self.mean) if self.deterministic else torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Tensor:  # type: ignore[override]
        return torch.zeros_like(self.mean) if self.deterministic else torch.exp(self.logvar)

    def sample(self, generator: torch.Generator | list[torch.Generator] | None = None) -> Tensor:
        """mean + std * noise, [B, C, h, w] in the dtype of the moments; the noise is drawn in the arithmetic's dtype.

        In float16 a sample beyond its range (65504) becomes the range's end.

        Args:
            generator: the source of the noise, one for the batch or a list with one for each sample.
        """
        noise = randn_tensor(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        sample = self.mean + self.std * noise
        dtype = self.parameters.dtype
        if dtype == torch.float16:
            limit = torch.finfo(dtype).max
            sample = sample.clamp(-limit, limit)
        return sample.to(dtype)

    def mode(self) -> Tensor:
        """The mean, [B, C, h, w] in the dtype of the moments."""
        return self.mean.to(self.parameters.dtype)

    def kl(self, other: DiagonalGaussianDistribution | None = None) -> Tensor:
        """KL(q || other), by default to N(0, 1), summed over C, h, w: [B], float32 (or float64).

        0.5 * sum of (mean - mean')^2 / var' + var / var' - 1 - logvar + logvar'.
        """
        if self.deterministic:
            return self.mean.new_zeros(len(self.mean))
        if other is None:
            return 0.5 * (self.mean.square() + self.var - 1.0 - self.logvar).sum(dim=(1, 2, 3))
        ratio = ((self.mean - other.mean).square() + self.var) / other.var  # [B, C, h, w]
        return 0.5 * (ratio - 1.0 - self.logvar + other.logvar).sum(dim=(1, 2, 3))

    def nll(self, sample: Tensor, dims: Sequence[int] = (1, 2, 3)) -> Tensor:
        """-log q(sample) = 0.5 * sum of log(2 pi) + logvar + (sample - mean)^2 / var over `dims`, by default [B]."""
        if self.deterministic:
            return self.mean.new_zeros(len(self.mean))
        squares = (sample - self.mean).square() / self.var  # [B, C, h, w]
        return 0.5 * (math.log(2 * math.pi) + self.logvar + squares).sum(dim=tuple(dims))
