"""What do tests and benchmarks feed the operators? Sample inputs, bad inputs, and tolerances with their reasons."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from litevae_kernels.group_norm_silu import group_norm_silu
from litevae_kernels.haar_dwt2d import haar_dwt2d, haar_idwt2d
from litevae_kernels.smc_conv2d import smc_conv2d, smc_weight

# (absolute, relative), against a float64 result: sixteen times the dtype's rounding unit, since a result is rounded
# once and the float32 arithmetic before it adds a few units of float32; float64 grows with the sums of a level.
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
    """Noise [2, channels, *size], the same on every device and in every dtype but for rounding."""
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(2, channels, *size, generator=generator, dtype=torch.float64).to(device, dtype)


def sample_layouts(
    dtype: torch.dtype, device: str = "cpu", size: tuple[int, int] = (13, 10)
) -> Iterator[tuple[str, Tensor]]:
    """The same kind of image [2, 3, H, W] in every way it can lie in memory."""
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
    """`function(*inputs)` is a public call; all inputs are floating and differentiable."""

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: tuple[Tensor, ...]

    def results_and_gradients(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """The results, then the gradients of all inputs; of inputs converted to `dtype`, with the same values.

        The results' gradients are from -1 to 1, rounded to the dtype that the inputs have here.
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
    """Every operator by name, called on that backend with inputs of that kind."""
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


class BadInput(NamedTuple):
    """A call that must raise `error`, with `message` in its text."""

    call: Callable[[], object]
    error: type[Exception]
    message: str


def bad_inputs(backend: str | None = None) -> dict[str, BadInput]:
    """Every kind of wrong argument by name, the same for all backends."""
    image, weight, scales = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.ones(3)
    level1, level2 = haar_dwt2d(image, 2)

    def dwt(*args: object, **options: object) -> Callable[[], object]:
        return lambda: haar_dwt2d(*args, backend=backend, **options)  # type: ignore[arg-type]

    def idwt(*args: object, **options: object) -> Callable[[], object]:
        return lambda: haar_idwt2d(*args, backend=backend, **options)  # type: ignore[arg-type]

    def conv(*args: object, **options: object) -> Callable[[], object]:
        return lambda: smc_conv2d(*args, backend=backend, **options)  # type: ignore[arg-type]

    def weights(*args: object, **options: object) -> Callable[[], object]:
        return lambda: smc_weight(*args, backend=backend, **options)  # type: ignore[arg-type]

    def norm(*args: object, **options: object) -> Callable[[], object]:
        return lambda: group_norm_silu(*args, backend=backend, **options)  # type: ignore[arg-type]

    return {
        "image is a list": BadInput(dwt([1.0]), TypeError, "image must be a torch.Tenso"),
        "image is int32": BadInput(dwt(image.int()), TypeError, "bfloat16 or uint8, got a torch.int32 tensor"),
        "image of rank 3": BadInput(dwt(image[0]), ValueError, "image must have shape [B, C, H, W]"),
        "image without rows": BadInput(dwt(image[:, :, :0]), ValueError, "H and W of at least 1"),
        "levels 0": BadInput(dwt(image, 0), ValueError, "levels must be from 1 to 16, got 0"),
        "levels 17": BadInput(dwt(image, 17), ValueError, "levels must be from 1 to 16, got 17"),
        "levels is a float": BadInput(dwt(image, 2.0), TypeError, "levels must be an int"),
        "levels is a bool": BadInput(dwt(image, True), TypeError, "levels must be an int"),
        "scaling": BadInput(dwt(image, scaling="unit"), ValueError, "scaling must be one of 'orthonormal', 'mean'"),
        "dtype": BadInput(dwt(image, dtype=torch.int32), ValueError, "dtype must be float64"),
        "pyramid is a dict": BadInput(idwt({}), TypeError, "pyramid must be a tensor or a sequence"),
        "pyramid is empty": BadInput(idwt(()), ValueError, "pyramid must have 1 to 16 levels"),
        "pyramid of 3 channels": BadInput(idwt(image), ValueError, "[B, 4C, h, w]"),
        "pyramid coarsest first": BadInput(idwt((level2, level1)), ValueError, "fine to coarse"),
        "pyramid of two dtypes": BadInput(idwt((level1, level2.double())), TypeError, "dtype of pyramid"),
        "size too small": BadInput(idwt(level1, size=(6, 8)), ValueError, "size[0] must be 7 or 8"),
        "size is an int": BadInput(idwt(level1, size=8), TypeError, "size must be a pai"),
        "x channels": BadInput(conv(image[:, :2], weight, scales), ValueError, "x must have 3 channels"),
        "x is an int tenso": BadInput(conv(image.long(), weight, scales), TypeError, "x must have dtype float64"),
        "bias": BadInput(conv(image, weight, scales, None, torch.ones(3)), ValueError, "bias must have shape [4]"),
        "weight of rank 2": BadInput(weights(weight[0, 0], scales), ValueError, "[O, I, kh, kw]"),
        "weight is empty": BadInput(weights(weight[:0], scales), ValueError, "at least one element"),
        "scales": BadInput(weights(weight, torch.ones(4)), ValueError, "scales must have shape [3]"),
        "gain": BadInput(weights(weight, scales, torch.ones(2)), ValueError, "gain must have one element"),
        "gain is a float": BadInput(weights(weight, scales, 1.0), TypeError, "gain must be a torch.Tenso"),
        "eps 0": BadInput(weights(weight, scales, eps=0.0), ValueError, "eps must be finite and above 0"),
        "eps nan": BadInput(weights(weight, scales, eps=float("nan")), ValueError, "eps must be finite and above 0"),
        "norm of an int tensor": BadInput(norm(image.int(), 1), TypeError, "x must have dtype float64"),
        "norm of rank 3": BadInput(norm(image[0], 1), ValueError, "x must have shape [B, C, H, W]"),
        "norm without channels": BadInput(norm(image[:, :0], 1), ValueError, "x must have at least one channel"),
        "num_groups 0": BadInput(norm(image, 0), ValueError, "num_groups must be at least 1, got 0"),
        "num_groups 2 of 3": BadInput(norm(image, 2), ValueError, "num_groups must divide the number of channels, 3"),
        "num_groups is a float": BadInput(norm(image, 3.0), TypeError, "num_groups must be an int, got 3.0"),
        "norm weight": BadInput(norm(image, 3, scales[:2]), ValueError, "weight must have shape [3], one a channel"),
        "norm weight of rank 2": BadInput(norm(image, 3, scales[None]), ValueError, "weight must have shape [3]"),
        "norm bias": BadInput(norm(image, 3, None, scales, skip=image), ValueError, "bias must have shape [6]"),
        "norm bias is a float": BadInput(norm(image, 3, scales, 1.0), TypeError, "bias must be a torch.Tenso"),
        "norm weight elsewhere": BadInput(norm(image, 3, scales.to("meta")), ValueError, "on the device of x, cpu"),
        "norm eps 0": BadInput(norm(image, 3, eps=0.0), ValueError, "eps must be finite and above 0"),
        "skip is a list": BadInput(norm(image, 3, skip=[1.0]), TypeError, "skip must be a torch.Tenso"),
        "skip of rank 3": BadInput(norm(image, 3, skip=image[0]), ValueError, "skip must have shape [B, C, H, W]"),
        "skip in half": BadInput(norm(image, 3, skip=image.half()), TypeError, "skip must have the dtype of x"),
        "skip size": BadInput(norm(image, 3, skip=image[..., :4]), ValueError, "skip must have shape [1, C2, 8, 8]"),
        "skip batch": BadInput(norm(image, 3, skip=image[:0]), ValueError, "skip must have shape [1, C2, 8, 8]"),
        "skip without channels": BadInput(norm(image, 3, skip=image[:, :0]), ValueError, "at least one channel"),
        "skip elsewhere": BadInput(norm(image, 3, skip=image.to("meta")), ValueError, "skip must be on the device"),
    }
