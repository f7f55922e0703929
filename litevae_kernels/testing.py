"""A call of every operator, for `python -m litevae_kernels --check` and tests."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from litevae_kernels.group_norm_silu import group_norm_silu
from litevae_kernels.haar_dwt2d import haar_dwt2d, haar_idwt2d
from litevae_kernels.smc_conv2d import smc_conv2d, smc_weight


class SampleCall(NamedTuple):
    """`function(*inputs)` is a public call; all inputs are floating-point and differentiable."""

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: tuple[Tensor, ...]

    def results_and_gradients(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """The results, then the gradients of all inputs, computed from the inputs converted to `dtype`.

        The results' gradients run from -1 to 1, rounded to the dtype of the unconverted inputs.
        """
        leaves = [tensor.detach().to(dtype or tensor.dtype, copy=True).requires_grad_() for tensor in self.inputs]
        result = self.function(*leaves)
        results = [result] if isinstance(result, Tensor) else list(result)
        grads = [torch.linspace(-1, 1, one.numel(), device=one.device).view(one.shape) for one in results]
        rounded = [grad.to(self.inputs[0].dtype).to(one.dtype) for grad, one in zip(grads, results, strict=True)]
        return [*(one.detach() for one in results), *torch.autograd.grad(results, leaves, rounded)]


def sample_calls(
    backend: str | None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    size: tuple[int, int] = (20, 24),
    memory_format: torch.memory_format = torch.contiguous_format,
) -> dict[str, SampleCall]:
    """A call of every operator by name, on `backend`, with inputs of the given size, dtype and memory format."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    def image(channels: int, *size: int) -> Tensor:
        return values(batch, channels, *size).to(memory_format=memory_format)

    height, width = size
    half = image(12, (height + 1) // 2, (width + 1) // 2)
    quarter = image(12, (height + 3) // 4, (width + 3) // 4)
    weight, scales, gain = image(8, 3, 3), values(8).abs() + 0.5, values()
    return {
        "haar_dwt2d": SampleCall(lambda x: haar_dwt2d(x, 3, scaling="mean", backend=backend), (image(3, *size),)),
        "haar_idwt2d": SampleCall(lambda *levels: haar_idwt2d(levels, size=size, backend=backend), (half, quarter)),
        "smc_weight": SampleCall(lambda *p: smc_weight(*p, backend=backend), (weight, scales, gain)),
        "smc_conv2d": SampleCall(
            lambda *p: smc_conv2d(*p, padding=1, backend=backend), (image(8, *size), weight, scales, gain)
        ),
        "group_norm_silu": SampleCall(
            lambda x, w, b: group_norm_silu(x, 4, w, b, backend=backend), (image(8, *size), values(8), values(8))
        ),
        "group_norm_silu with skip": SampleCall(
            lambda x, skip, w, b: group_norm_silu(x, 4, w, b, skip=skip, backend=backend),
            (image(6, *size), image(10, *size), values(16), values(16)),
        ),
    }
