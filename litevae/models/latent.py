"""The posterior of a latent: a Gaussian for each element, to be sampled and held near N(0, 1).

image -> DWT -> feature extraction -> aggregation -> [latent] -> decoder -> losses
"""

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from litevae_kernels.checks import wrong_kind, wrong_value

LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0


class DiagonalGaussian:
    """The posterior q(z | image) = N(mean, exp(logvar)), element by element (section 3).

    Args:
        moments: [B, 2C, h, w], floating point, the encoder's output: mean, then log-variance.

    Attributes:
        mean, logvar, std, var: [B, C, h, w]; logvar is clamped to [-30, 20]. float32 (float64 for float64 moments),
            for in float16 exp(logvar) is infinite from 11.09 on.

    Raises:
        TypeError, ValueError: `moments` is no such tensor.

    >>> posterior = DiagonalGaussian(torch.zeros(2, 8, 4, 4, dtype=torch.bfloat16))
    >>> posterior.mode().dtype, posterior.kl()
    (torch.bfloat16, tensor([0., 0.]))
    """

    def __init__(self, moments: Tensor) -> None:
        if not isinstance(moments, Tensor) or not moments.dtype.is_floating_point:
            raise wrong_kind("moments", "be a floating-point tensor [B, 2C, h, w]", moments)
        if moments.dim() != 4 or moments.shape[1] % 2:
            raise wrong_value("moments", "have 4 dimensions [B, 2C, h, w] and an even number of channels", moments)
        self._dtype = moments.dtype  # private: accelerate takes what has a half `dtype` for a tensor
        precise = moments.to(torch.promote_types(moments.dtype, torch.float32))
        self.mean, logvar = precise.chunk(2, dim=1)  # [B, C, h, w] each
        self.logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Tensor:
        return torch.exp(self.logvar)

    def sample(self, generator: torch.Generator | list[torch.Generator] | None = None) -> Tensor:
        """mean + std * noise, [B, C, h, w] in the dtype of the moments; the noise is drawn in the arithmetic's dtype.

        In float16 a sample beyond its range (65504) becomes the range's end.

        Args:
            generator: the source of the noise, one for the batch or a list with one for each sample.
        """
        noise = randn_tensor(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        sample = self.mean + self.std * noise
        if self._dtype == torch.float16:
            limit = torch.finfo(self._dtype).max
            sample = sample.clamp(-limit, limit)
        return sample.to(self._dtype)

    def mode(self) -> Tensor:
        """The mean, [B, C, h, w] in the dtype of the moments."""
        return self.mean.to(self._dtype)

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) = 0.5 * sum over C, h, w of (mean^2 + var - 1 - logvar): [B], float32 (or float64)."""
        return 0.5 * (self.mean.square() + self.var - 1.0 - self.logvar).sum(dim=(1, 2, 3))
