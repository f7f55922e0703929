"""Do the tests of the CUDA kernels catch what a GPU would not forgive? Small kernels, each with one mistake."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import cuda_on_host
import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.skipif(cuda_on_host.missing() is not None, reason=str(cuda_on_host.missing()))

Launch = Callable[..., Tensor]

# Reverses 64 elements a block through shared memory, then sums each warp by shuffles.
REVERSE = """
template <typename T>
__global__ void __launch_bounds__(64) kernel(const T* x, T* y, int count, double scale) {
    __shared__ T tile[64];
    const int i = threadIdx.x, at = blockIdx.x * 64 + i;
    if (at < count) tile[i] = x[at];
    __syncthreads();
    if (at < count) y[at] = T(scale) * tile[63 - i];
}
"""
SUM_OF_WARP = """
template <typename T>
__global__ void kernel(const T* x, T* y, int count, double scale) {
    T value = x[threadIdx.x];
    for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffff, value, bits);
    y[threadIdx.x] = T(scale) * value + T(0) * __shfl_down_sync(0xffffffff, value, 1);
}
"""


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """launch(source, x, replaced, by): the result of the kernel, with one piece of its source replaced."""

    def build_and_run(source: str, x: Tensor, replaced: str = "", by: str = "", block: int = 64) -> Tensor:
        assert replaced in source
        path = tmp_path / str(len(list(tmp_path.iterdir()))) / "kernel.cu"
        path.parent.mkdir()
        path.write_text(source.replace(replaced, by) if replaced else source)
        y = torch.full_like(x, torch.nan)
        arguments = [x, y, ctypes.c_int32(x.numel()), ctypes.c_double(2)]
        grid = (max(1, x.numel() // 64), 1, 1)
        name = {torch.float32: "float", torch.float64: "double"}[x.dtype]
        cuda_on_host.launch_source(path, f"kernel<{name}>", grid, block, arguments)
        return y

    return build_and_run


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_runs_blocks_threads_barriers_and_shuffles(launch: Launch, dtype: torch.dtype) -> None:
    x = torch.arange(128, dtype=dtype)
    assert torch.equal(launch(REVERSE, x), 2 * x.view(2, 64).flip(1).flatten())
    assert torch.equal(launch(SUM_OF_WARP, x[:64]), 2 * x[:64].view(2, 32).sum(1).repeat_interleave(32))


MISTAKES = {
    "missing barrier": ("    __syncthreads();\n", "", "no thread of its block has written|no barrier between"),
    "divergent barrier": ("__syncthreads();", "if (i == 63) return;\n __syncthreads();", "thread 63 has ended"),
    "barrier in two places": (
        "__syncthreads();",
        "if (i % 2) {\n __syncthreads();\n } else {\n __syncthreads();\n }",
        "diverges: thread 0 waits in line .*, thread 1 waits in line",
    ),
    "shared memory never written": ("if (at < count) tile", "if (i > 0) tile", "no thread of its block has written"),
    "read past the end": (
        "x[at]",
        "x[at + 1]",
        "reads 4 bytes outside of every argument .4 bytes past the end of argument 0",
    ),
    "write before the start": ("y[at]", "y[at - 1]", "writes 4 bytes outside of every argument"),
    "index past a shared array": ("tile[63 - i]", "tile[64 - i]", "past the end of an array"),
    "two threads write one element": ("y[at]", "y[at / 2]", "writes what thread .* writes too"),
    "two blocks write one element": ("y[at]", "y[i]", "writes what another block reads or writes"),
    "misaligned": (
        "y[at] = T(scale) * tile[63 - i]",
        "*reinterpret_cast<double*>(y + 2 * (at / 2) + 1) = 1",
        "8 bytes not aligned to their size",
    ),
    "int32 offsets": ("x[at]", "x[at * count * count * count * count % 64]", "overflows a signed integer"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_errors(launch: Launch, mistake: str) -> None:
    replaced, by, message = MISTAKES[mistake]
    with pytest.raises(RuntimeError, match=message) as error:
        launch(REVERSE, torch.arange(128, dtype=torch.float32), replaced, by)
    assert "kernel.cu" in str(error.value)
    test_runs_blocks_threads_barriers_and_shuffles(launch, torch.float32)  # and the next launch is sound


def test_missing_barrier_gives_wrong_results_even_without_the_detector(launch: Launch) -> None:
    """Threads run in an order that changes, so a value that is read too early is not yet there."""
    x = torch.arange(128, dtype=torch.float32)
    unseen = REVERSE.replace("kernel(const T*", "__attribute__((no_sanitize_thread)) kernel(const T*")
    assert torch.equal(launch(unseen, x), launch(REVERSE, x))
    result = launch(unseen, x, "    __syncthreads();\n")
    assert result.isnan().any()


@pytest.mark.parametrize(
    ("by", "message"),
    [("if (threadIdx.x == 3) return;\n for (int bits", "diverges"), ("for (int bits", "mask must hold the whole warp")],
)
def test_wrong_shuffle_is_an_error(launch: Launch, by: str, message: str) -> None:
    source = SUM_OF_WARP if "return" in by else SUM_OF_WARP.replace("0xffffffff", "0xffff")
    with pytest.raises(RuntimeError, match=message):
        launch(source, torch.ones(64), "for (int bits", by)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arguments: arguments[:3], "takes 4 arguments, got 3"),
        (lambda arguments: [*arguments[:2], ctypes.c_int64(64), arguments[3]], "argument 2 must be of kind 'i'"),
        (lambda arguments: [*arguments[:2], 64, arguments[3]], "argument 2 must be of kind 'i', got 64"),
        (lambda arguments: [ctypes.c_double(0), *arguments[1:]], "argument 0 must be of kind 'P'"),
        (lambda arguments: [None, *arguments[1:]], "reads 4 bytes outside of every argument"),
    ],
)
def test_arguments_must_match_the_parameters(
    tmp_path: Path, change: Callable[[list[object]], list[object]], message: str
) -> None:
    path = tmp_path / "kernel.cu"
    path.write_text(REVERSE)
    x = torch.ones(64)
    arguments = [x, x.clone(), ctypes.c_int32(64), ctypes.c_double(2)]
    with pytest.raises(RuntimeError, match=message):
        cuda_on_host.launch_source(path, "kernel<float>", (1, 1, 1), 64, change(arguments))


def test_source_that_does_not_compile_shows_the_log(launch: Launch) -> None:
    with pytest.raises(RuntimeError, match="no_such_name"):
        launch(REVERSE, torch.ones(64), "T(scale)", "no_such_name")
