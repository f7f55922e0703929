"""Sample inputs and tolerances of the operators, for tests and `python -m litevae_kernels --check`."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from litevae_kernels.group_norm_silu import group_norm_silu
from litevae_kernels.haar_dwt2d import haar_dwt2d, haar_idwt2d
from litevae_kernels.smc_conv2d import smc_conv2d, smc_weight

# (absolute, relative) against a float64 result: at least sixteen times the dtype's unit roundoff. A result is rounded
# once, and the float32 arithmetic before it adds a few roundoffs of float32. In float64 the sums add some thousand.
TOLERANCES = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (4e-6, 4e-6),
    torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (1.6e-2, 1.6e-2),
}
SIZES = ((1, 1), (1, 6), (7, 1), (2, 2), (8, 8), (13, 10), (31, 33), (67, 129))


def assert_close(actual: Tensor, expected: Tensor, scale: float = 1.0) -> None:
    """Compares with the float64 result `expected` within the tolerance of `actual`'s dtype times `scale`."""
    absolute, relative = TOLERANCES[actual.dtype]
    torch.testing.assert_close(
        actual.double(), expected.double(), atol=scale * absolute, rtol=scale * relative, check_stride=False
    )


def image_of(*size: int, dtype: torch.dtype = torch.float64, device: str = "cpu", channels: int = 3) -> Tensor:
    """Noise [2, channels, *size]: the same values, rounded to `dtype`, on every device."""
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(2, channels, *size, generator=generator, dtype=torch.float64).to(device, dtype)


def sample_layouts(
    dtype: torch.dtype, device: str = "cpu", size: tuple[int, int] = (13, 10)
) -> Iterator[tuple[str, Tensor]]:
    """Images [2, 3, H, W] with every kind of strides, by name."""
    height, width = size
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    yield "contiguous", values(2, 3, height, width)
    yield "channels_last", values(2, 3, height, width).to(memory_format=torch.channels_last)
    yield "permuted", values(3, height, 2, width).permute(2, 0, 1, 3)
    yield "transposed", values(2, 3, width, height).mT
    yield "sliced", values(2, 5, height + 2, 2 * width)[:, 1:4, 1:-1, ::2]
    yield "expanded", values(2, 1, height, 1).expand(2, 3, height, width)
    yield "misaligned", values(2 * 3 * height * width + 1)[1:].view(2, 3, height, width)
    yield "channels_last slice", values(2, height, width + 3, 3)[:, :, 1:-2].permute(0, 3, 1, 2)


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
