"""Is the Haar DWT the right one: against float64, on every backend, and with all its derivatives?"""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from litevae_kernels import haar_dwt2d, haar_idwt2d
from litevae_kernels.formats import memory_format_of
from litevae_kernels.haar_dwt2d import ops

from .samples import SIZES, TOLERANCES, assert_close, image_of, sample_layouts

HALF_AND_SINGLE = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("levels", [1, 3, 6])
def test_mean_scaling_divides_level_l_by_2_to_the_l(backend: str, device: str, levels: int) -> None:
    image = image_of(21, 34, device=device)
    orthonormal = haar_dwt2d(image, levels, backend=backend)
    mean = haar_dwt2d(image, levels, scaling="mean", backend=backend)
    for level, (packed, scaled) in enumerate(zip(orthonormal, mean, strict=True), start=1):
        assert_close(scaled, packed / 2**level)
    assert_close(mean[0][:, :3], torch.nn.functional.avg_pool2d(image, 2, ceil_mode=True, count_include_pad=False))


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
def test_every_layout(backend: str, device: str, dtype: torch.dtype) -> None:
    for name, image in sample_layouts(dtype, device):
        exact = haar_dwt2d(image.double(), 3, backend="reference")
        pyramid = haar_dwt2d(image, 3, backend=backend)
        for packed, expected in zip(pyramid, exact, strict=True):
            assert_close(packed, expected, scale=8)
        height, width = image.shape[-2:]
        restored = haar_idwt2d(pyramid, size=(height, width), backend=backend)
        torch.testing.assert_close(
            restored, image, atol=8 * TOLERANCES[dtype][0], rtol=8 * TOLERANCES[dtype][1], check_stride=False
        )
        channels_last = "channels_last" in name and "slice" not in name
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        assert all(packed.is_contiguous(memory_format=memory_format) for packed in (*pyramid, restored)), name


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 24), (67, 129)])
@pytest.mark.parametrize("levels", [1, 3, 5])
@pytest.mark.parametrize("scaling", ["orthonormal", "mean"])
def test_inverse(backend: str, device: str, size: tuple[int, int], levels: int, scaling: str) -> None:
    image = image_of(*size, device=device)
    pyramid = haar_dwt2d(image, levels, scaling=scaling, backend=backend)
    assert_close(haar_idwt2d(pyramid, scaling=scaling, size=size, backend=backend), image, scale=10)
    garbled = [packed.clone() for packed in pyramid]
    for packed in garbled[:-1]:
        packed[:, :3] = torch.nan  # only the coarsest level's L is read
    assert_close(haar_idwt2d(garbled, scaling=scaling, size=size, backend=backend), image, scale=10)


@pytest.mark.parametrize("channels", [1, 2, 5, 20])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(8, 16), (7, 10)])
def test_any_number_of_channels(
    backend: str, device: str, channels: int, memory_format: torch.memory_format, size: tuple[int, int]
) -> None:
    """Few channels of channels_last lie side by side in one block of threads; many do not."""
    image = image_of(*size, device=device, channels=channels).contiguous(memory_format=memory_format)
    pyramid = haar_dwt2d(image, 2, backend=backend)
    for packed, expected in zip(pyramid, haar_dwt2d(image, 2, backend="reference"), strict=True):
        assert_close(packed, expected)
    assert_close(haar_idwt2d(pyramid, size=size, backend=backend), image, scale=10)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_every_size_and_level_equals_the_reference(
    backend: str, device: str, size: tuple[int, int], levels: int, layout: str
) -> None:
    """Where PyWavelets is not installed too: the four maps, each from inputs of its own."""
    if backend == "reference":
        pytest.skip("it is the definition; test_haar_dwt2d_pywavelets.py compares it with PyWavelets")
    if device == "cpu" and backend == "triton" and (levels < 4 or max(size) > 40):
        pytest.skip("interpreted slowly; test_haar_dwt2d_pywavelets.py has it too")
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    image = image_of(*size, device=device).contiguous(memory_format=memory_format)
    pyramid = [image_of(*packed.shape[2:], channels=12, device=device) for packed in haar_dwt2d(image, levels)]
    pyramid = [packed.contiguous(memory_format=memory_format) for packed in pyramid]
    height, width = size

    def maps(name: str) -> list[Tensor]:
        return [
            *ops.haar_dwt2d(image, levels, 0.5, torch.float64, torch.preserve_format, name),
            ops.haar_idwt2d(pyramid, height, width, 0.5, name),
            ops.haar_dwt2d_backward(pyramid, height, width, 0.5, torch.float64, name),
            *ops.haar_idwt2d_backward(image, levels, 0.5, name),
        ]

    for actual, expected in zip(maps(backend), maps("reference"), strict=True):
        assert_close(actual, expected, scale=2**levels)


def test_energy_is_kept(backend: str, device: str) -> None:
    image = image_of(32, 64, device=device)
    level1, level2 = haar_dwt2d(image, 2, backend=backend)
    energy = level1[:, 3:].square().sum() + level2.square().sum()
    assert_close(energy, image.square().sum(), scale=10)


def test_pixels_of_8_bits_are_exact_in_float32(backend: str, device: str) -> None:
    image = torch.randint(0, 256, (2, 3, 32, 40), generator=torch.Generator().manual_seed(0)).to(device)
    for packed, exact in zip(
        haar_dwt2d(image.float(), 3, backend=backend), haar_dwt2d(image.double(), 3, backend="reference"), strict=True
    ):
        assert torch.equal(packed.double(), exact)


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(13, 10), (32, 64)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_uint8_pixels_are_the_values_from_minus_1_to_1(
    backend: str, device: str, dtype: torch.dtype | None, size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    """To the last bit: as if they had been converted before."""
    pixels = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = pixels.to(memory_format=memory_format)
    values = pixels.to(torch.float64 if dtype == torch.float64 else torch.float32) / 127.5 - 1  # CUDA would multiply
    pixels, values = pixels.to(device), values.to(device)
    expected = haar_dwt2d(values, 3, dtype=dtype, backend=backend)
    for packed, exact in zip(haar_dwt2d(pixels, 3, dtype=dtype, backend=backend), expected, strict=True):
        assert packed.dtype == (dtype or torch.float32)
        assert packed.stride() == exact.stride()
        assert torch.equal(packed, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_of_the_256_pixels_is_the_exact_quotient(backend: str, device: str, dtype: torch.dtype) -> None:
    """On a 1x1 image with scaling "mean", L is the value itself: no kernel divides, all have the division's bits."""
    pixels = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    low = haar_dwt2d(pixels.to(device), scaling="mean", dtype=dtype, backend=backend)[0][:, :1]
    assert torch.equal(low.cpu(), pixels.to(dtype) / 127.5 - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_result_dtype(backend: str, device: str, dtype: torch.dtype) -> None:
    for source in (torch.bfloat16, torch.float32, torch.float64):
        image = image_of(9, 12, dtype=source, device=device)
        for packed, expected in zip(
            haar_dwt2d(image, 2, dtype=dtype, backend=backend), haar_dwt2d(image.double(), 2), strict=True
        ):
            assert packed.dtype == dtype
            absolute, relative = TOLERANCES[dtype if source != torch.bfloat16 else torch.float32]
            assert_close(packed, expected, scale=4 if dtype != torch.float64 else 4 * absolute / 1e-12 + relative)


def test_half_is_rounded_once(backend: str, device: str) -> None:
    """Three levels in float32 and one rounding, not a rounding at every level."""
    interpreted = backend == "triton" and device == "cpu"  # Triton's interpreter truncates to bfloat16
    dtype = torch.float16 if interpreted else torch.bfloat16
    image = image_of(32, 32, dtype=dtype, device=device)
    expected = haar_dwt2d(image.float(), 3, backend=backend)[2].to(dtype)
    assert torch.equal(haar_dwt2d(image, 3, backend=backend)[2], expected)


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (5, 7), (9, 4)])
@pytest.mark.parametrize("levels", [1, 3, 5])
def test_derivatives(backend: str, device: str, size: tuple[int, int], levels: int) -> None:
    """First and second, in float64: at odd edges they fold, and every level's L takes part."""
    if backend == "triton" and (levels == 5) != (size == (5, 7)):
        pytest.skip("the interpreter is slow: one size crosses launches, the others stay within one")
    image = image_of(*size, device=device, channels=1)[:1].requires_grad_()

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        return haar_dwt2d(image, levels, backend=backend)

    def inverse(*pyramid: Tensor) -> Tensor:
        return haar_idwt2d(pyramid, size=size, backend=backend)

    pyramid = [packed.detach().requires_grad_() for packed in forward(image)]
    fast = {"fast_mode": backend == "triton"}
    assert gradcheck(forward, image, **fast)
    assert gradgradcheck(forward, image, fast_mode=True)
    assert gradcheck(inverse, pyramid, **fast)
    assert gradgradcheck(inverse, pyramid, fast_mode=True)


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("size", [(8, 16), (13, 10)])
def test_gradients_in_lower_precision(backend: str, device: str, dtype: torch.dtype, size: tuple[int, int]) -> None:
    for name, image in sample_layouts(dtype, device, size):
        image = image.detach().requires_grad_()
        exact = image.detach().double().requires_grad_()
        pyramid, exact_pyramid = haar_dwt2d(image, 3, backend=backend), haar_dwt2d(exact, 3, backend="reference")
        grads = [torch.linspace(-1, 1, packed.numel(), device=device).view_as(packed).to(dtype) for packed in pyramid]
        grads = [grad.contiguous(memory_format=memory_format_of(image)) for grad in grads]
        (gradient,) = torch.autograd.grad(pyramid, image, grads)
        (expected,) = torch.autograd.grad(exact_pyramid, exact, [grad.double() for grad in grads])
        assert_close(gradient, expected, scale=8)
        assert gradient.dtype == dtype, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("pitch", [16, 18, 19])
def test_rows_and_pixels_at_any_address(backend: str, device: str, dtype: torch.dtype, first: int, pitch: int) -> None:
    """Whether 16 bytes may be read at once depends on where a row starts, and on where the next one does."""
    values = torch.randn(first + 2 * 3 * 8 * pitch, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    rows = values[first:].view(2, 3, 8, pitch)[..., :16]
    pixels = values[first:].view(2, 8, pitch, 3).permute(0, 3, 1, 2)
    for image in (rows, pixels):
        for packed, expected in zip(
            haar_dwt2d(image, 2, backend=backend), haar_dwt2d(image.double(), 2, backend="reference"), strict=True
        ):
            assert_close(packed, expected, scale=4)


def test_unused_levels_get_zero_gradient(backend: str, device: str) -> None:
    image = image_of(6, 6, device=device).requires_grad_()
    haar_dwt2d(image, 2, backend=backend)[0][:, :3].sum().backward()
    assert_close(image.grad, torch.full_like(image, 0.5))


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 5, 5)])
def test_empty(backend: str, device: str, shape: tuple[int, ...], levels: int) -> None:
    image = torch.empty(shape, device=device, requires_grad=True)
    pyramid = haar_dwt2d(image, levels, backend=backend)
    assert pyramid[1].shape == (shape[0], 4 * shape[1], (shape[2] + 3) // 4, (shape[3] + 3) // 4)
    restored = haar_idwt2d(pyramid, size=shape[2:], backend=backend)
    assert restored.shape == shape
    restored.sum().backward()
    assert image.grad is not None
    assert image.grad.shape == shape


def test_large_images_past_the_caches() -> None:
    """The C++ kernels stream results of 16 MiB and more past the caches; the values stay the same."""
    image = torch.randn(2, 3, 1024, 1030, generator=torch.Generator().manual_seed(0))
    pyramid = haar_dwt2d(image, 3, backend="cpu")
    for packed, expected in zip(pyramid, haar_dwt2d(image.double(), 3, backend="reference"), strict=True):
        assert_close(packed, expected, scale=2)
    assert_close(haar_idwt2d(pyramid, size=(1024, 1030), backend="cpu"), image.double(), scale=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cpu_reads_and_rounds_every_half_value(dtype: torch.dtype) -> None:
    """On a 1x1 image with scaling "mean", L is the value itself: bit for bit what torch converts."""
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
    every = every[~(every.float().abs() > 8e37) | every.isinf()]  # four times a larger one overflows
    low = haar_dwt2d(every.view(-1, 1, 1, 1), scaling="mean", dtype=torch.float32, backend="cpu")[0][:, 0, 0, 0]
    torch.testing.assert_close(low, every.float(), rtol=0, atol=0, equal_nan=True)
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    singles = torch.cat([bits.view(torch.float32), every.float(), every.float() * (1 + 2**-9), every.float() * 1.5])
    singles = singles[~(singles.abs() > 8e37)]
    low = haar_dwt2d(singles.view(-1, 1, 1, 1), scaling="mean", dtype=dtype, backend="cpu")[0][:, 0, 0, 0]
    torch.testing.assert_close(low, singles.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_is_the_same_twice_and_for_any_number_of_threads() -> None:
    image = image_of(130, 257, dtype=torch.float32)
    threads = torch.get_num_threads()
    first = haar_dwt2d(image, 4, backend="cpu")
    torch.set_num_threads(1)
    second = haar_dwt2d(image, 4, backend="cpu")
    torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_infinite_gradient_stays_out_of_the_hidden_low_bands(backend: str, device: str) -> None:
    image = image_of(8, 8, dtype=torch.float32, device=device)
    image[0, 0, 0, 0] = torch.inf
    pyramid = [packed.requires_grad_() for packed in haar_dwt2d(torch.ones_like(image), 2, backend=backend)]
    finest, _ = torch.autograd.grad(haar_idwt2d(pyramid, backend=backend), pyramid, image)
    assert finest[:, :3].eq(0).all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_registration(backend: str, device: str, layout: str) -> None:
    image = dict(sample_layouts(torch.float32, device))[layout].requires_grad_()
    pyramid = [packed.detach().requires_grad_() for packed in haar_dwt2d(image, 2)]
    pixels = dict(sample_layouts(torch.uint8, device))[layout]
    calls = [
        (ops.haar_dwt2d, (image, 2, 0.5, torch.float32, torch.preserve_format, backend)),
        (ops.haar_dwt2d, (image, 2, 0.5, torch.float32, torch.channels_last, backend)),
        (ops.haar_dwt2d, (pixels, 2, 0.5, torch.bfloat16, torch.contiguous_format, backend)),
        (ops.haar_dwt2d_backward, (pyramid, 13, 10, 0.5, torch.float32, backend)),
        (ops.haar_idwt2d, (pyramid, 13, 10, 0.5, backend)),
        (ops.haar_idwt2d_backward, (image, 2, 0.5, backend)),
    ]
    for op, arguments in calls:
        torch.library.opcheck(op, arguments)


@pytest.mark.parametrize("memory_format", [torch.preserve_format, torch.channels_last])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(dynamic: bool, memory_format: torch.memory_format) -> None:
    def round_trip(image: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = haar_dwt2d(image, 3, scaling="mean", memory_format=memory_format)
        height, width = image.shape[-2:]
        return haar_idwt2d(pyramid, scaling="mean", size=(height, width)), pyramid[1]

    compiled = torch.compile(round_trip, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in [(16, 24), (13, 31)]:
        eager_image = image_of(*size, dtype=torch.float32).requires_grad_()
        image = eager_image.detach().clone().requires_grad_()
        for one, two in zip(compiled(image), round_trip(eager_image), strict=True):
            assert torch.equal(one, two)
            assert one.stride() == two.stride()
            (one.square().sum()).backward(retain_graph=True)
            (two.square().sum()).backward(retain_graph=True)
        torch.testing.assert_close(image.grad, eager_image.grad)


def test_pixels_compile_to_one_graph() -> None:
    pixels = torch.arange(2 * 3 * 13 * 10).remainder(256).to(torch.uint8).reshape(2, 3, 13, 10)
    compiled = torch.compile(haar_dwt2d, fullgraph=True, backend="aot_eager")
    for one, two in zip(compiled(pixels, 2), haar_dwt2d(pixels, 2), strict=True):
        assert torch.equal(one, two)
