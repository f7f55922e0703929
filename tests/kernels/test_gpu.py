"""Do the operators behave on a GPU: streams, CUDA graphs, torch.compile, devices, determinism, huge tensors?

The tests of the rooms compare every backend with the float64 reference, on CUDA tensors where there is a GPU; here is
what only a GPU can show. `pytest -m gpu` runs both. Memory errors and races, one tool at a time (much slower):

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 1 \
        python -m pytest -m gpu -k sanitized tests/kernels/test_gpu.py

and likewise with --tool racecheck, initcheck and synccheck.
"""

from collections.abc import Callable

import pytest
import torch

from litevae_kernels import backends, group_norm_silu, haar_dwt2d, haar_idwt2d
from litevae_kernels.testing import sample_calls

from .samples import TOLERANCES, assert_close

pytestmark = pytest.mark.gpu

OPERATORS = list(sample_calls(None))
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SANITIZED_SIZES = [(2, 3), (13, 10), (32, 64)]
FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(params=["triton", "cuda"])
def gpu_backend(request: pytest.FixtureRequest) -> str:
    status = backends()[request.param]
    if not status.available:
        pytest.skip(status.reason)
    return request.param


def large(backend: str, device: str = "cuda", memory_format: torch.memory_format = torch.contiguous_format) -> dict:
    return sample_calls(backend, device, batch=8, size=(200, 256), memory_format=memory_format)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_sanitized(gpu_backend: str, operator: str, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """Small, odd and aligned sizes against float64: what compute-sanitizer is pointed at.

    Not one pixel: a group then has two elements, in whose gradient all but about eps cancels.
    """
    for size in SANITIZED_SIZES:
        arguments = {"dtype": dtype, "size": size, "memory_format": memory_format}
        call = sample_calls(gpu_backend, "cuda", **arguments)[operator]
        exact = sample_calls("reference", "cuda", **arguments)[operator]
        actual, expected = call.results_and_gradients(), exact.results_and_gradients(torch.float64)
        for one, two in zip(actual, expected, strict=True):
            # Sums over thousands of elements that partly cancel: norms are compared.
            error = torch.linalg.vector_norm(one.double() - two.reshape(one.shape))
            assert error <= 2 * TOLERANCES[dtype][1] * torch.linalg.vector_norm(two) + 1e-3 * TOLERANCES[dtype][0]


@pytest.mark.parametrize("operator", OPERATORS)
def test_runs_on_the_current_stream(gpu_backend: str, operator: str) -> None:
    """The inputs are ready only after a long wait on a side stream; another stream would read them too early."""
    call = large(gpu_backend)[operator]
    expected = call.results_and_gradients()
    late = tuple(torch.zeros_like(tensor) for tensor in call.inputs)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)
        for tensor, values in zip(late, call.inputs, strict=True):
            tensor.copy_(values)
        actual = call._replace(inputs=late).results_and_gradients()
    side.synchronize()
    assert all(torch.equal(one, two) for one, two in zip(actual, expected, strict=True))


@pytest.mark.parametrize("operator", OPERATORS)
def test_captured_in_a_cuda_graph(gpu_backend: str, operator: str) -> None:
    call = large(gpu_backend)[operator]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call.results_and_gradients()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call.results_and_gradients()
    for tensor in call.inputs:
        tensor.copy_(tensor.flip(0) * 0.5)
    graph.replay()
    expected = call.results_and_gradients()
    assert all(torch.equal(one, two) for one, two in zip(captured, expected, strict=True))


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_first_call_may_be_captured_in_a_cuda_graph(gpu_backend: str, operator: str) -> None:
    """Sizes and a number of groups that no other test has, so that kernels are compiled and loaded in the capture."""
    call = sample_calls(gpu_backend, "cuda", torch.float64, batch=3, size=(40, 56))[operator]
    if operator == "smc_conv2d":
        torch.nn.functional.conv2d(call.inputs[0], call.inputs[1])  # cuDNN and cuBLAS load their own libraries
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        captured = call.function(*call.inputs)
    graph.replay()
    expected = call.function(*call.inputs)
    pairs = [(captured, expected)] if isinstance(expected, torch.Tensor) else zip(captured, expected, strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("operator", OPERATORS)
def test_never_waits_for_the_device(gpu_backend: str, operator: str) -> None:
    call = large(gpu_backend)[operator]
    call.results_and_gradients()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call.results_and_gradients()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_inductor_equals_eager(
    gpu_backend: str, operator: str, dynamic: bool, memory_format: torch.memory_format
) -> None:
    call = large(gpu_backend, memory_format=memory_format)[operator]
    compiled = call._replace(function=torch.compile(call.function, fullgraph=True, dynamic=dynamic))
    for one, two in zip(compiled.results_and_gradients(), call.results_and_gradients(), strict=True):
        if operator == "smc_conv2d":  # Inductor may choose another convolution of cuDNN's; sums of 410,000 products
            assert torch.linalg.vector_norm(one - two) <= 1e-4 * torch.linalg.vector_norm(two)
        else:
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_is_the_same_every_time(gpu_backend: str, operator: str, memory_format: torch.memory_format) -> None:
    call = large(gpu_backend, memory_format=memory_format)[operator]
    if operator == "smc_conv2d":
        pytest.skip("the convolution's gradient is cuDNN's")
    first = call.results_and_gradients()
    for _ in range(3):
        again = call.results_and_gradients()
        assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


@pytest.mark.parametrize("operator", OPERATORS)
def test_runs_on_the_device_of_its_inputs(gpu_backend: str, operator: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    assert torch.cuda.current_device() == 0
    here, there = (large(gpu_backend, device)[operator] for device in ("cuda:0", "cuda:1"))
    actual = there.results_and_gradients()
    assert all(tensor.device == torch.device("cuda:1") for tensor in actual)
    for one, two in zip(actual, here.results_and_gradients(), strict=True):
        assert torch.equal(one.to("cuda:0"), two)


def needs_gib(gib: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < gib * 2**30:
        pytest.skip(f"needs {gib} GiB of free GPU memory")


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_haar_of_more_than_2_to_the_31_elements(gpu_backend: str, memory_format: torch.memory_format) -> None:
    needs_gib(40)
    image = torch.zeros((12, 3, 8192, 8192), dtype=torch.bfloat16, device="cuda").to(memory_format=memory_format)
    corner = torch.randn(3, 64, 64, device="cuda").bfloat16()
    image[-1, :, -64:, -64:] = corner
    expected = haar_dwt2d(corner[None].double(), 2, backend="reference")
    pyramid = haar_dwt2d(image, 2, backend=gpu_backend)
    for packed, exact in zip(pyramid, expected, strict=True):
        side = exact.shape[-1]
        assert_close(packed[-1:, :, -side:, -side:], exact, scale=4)
        assert packed[0].count_nonzero() == 0
    del image
    restored = haar_idwt2d(pyramid, backend=gpu_backend)
    assert_close(restored[-1, :, -64:, -64:], corner, scale=8)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_group_norm_silu_of_more_than_2_to_the_31_elements(
    gpu_backend: str, memory_format: torch.memory_format
) -> None:
    needs_gib(60)
    x = torch.zeros((9, 64, 2048, 2048), dtype=torch.bfloat16, device="cuda").to(memory_format=memory_format)
    x[-1].normal_()
    x.requires_grad_()
    result = group_norm_silu(x, 32, backend=gpu_backend)
    last = x[-1:].detach().clone(memory_format=memory_format).requires_grad_()
    expected = group_norm_silu(last, 32, backend=gpu_backend)
    assert torch.equal(result[-1:], expected)  # a sample's result does not depend on its batch
    (gradient,) = torch.autograd.grad(result, x, result.detach())
    assert torch.equal(gradient[-1:], torch.autograd.grad(expected, last, expected.detach())[0])


@pytest.mark.parametrize("operator", OPERATORS)
def test_backends_agree(operator: str) -> None:
    available: dict[str, Callable[[], dict]] = {
        name: lambda name=name: large(name) for name in ("triton", "cuda") if backends()[name].available
    }
    if len(available) < 2:
        pytest.skip("needs both GPU backends")
    triton, cuda = (make()[operator] for make in available.values())
    for one, two in zip(triton.results_and_gradients(), cuda.results_and_gradients(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
