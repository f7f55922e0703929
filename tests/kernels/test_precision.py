"""cuDNN rounds float32 to TF32 unless told otherwise: would that be noticed, and do the checks switch it off?

Simulated: convolutions whose float32 inputs have 10 bits of mantissa where torch allows TF32.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from litevae_kernels import __main__ as program
from litevae_kernels import backends
from litevae_kernels.precision import tf32
from litevae_kernels.testing import sample_calls

from .samples import TOLERANCES


def rounded(tensor: Tensor) -> Tensor:
    """To the nearest number with 10 bits of mantissa, ties to even; its gradient is passed on."""
    bits = tensor.detach().view(torch.int32)
    nearest = (bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF
    return tensor + (nearest.view(torch.float32) - tensor).detach()


@pytest.fixture(autouse=True)
def as_cudnn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    convolve = F.conv2d

    def conv2d(x: Tensor, weight: Tensor, *options: object) -> Tensor:
        if torch.backends.cudnn.allow_tf32 and x.dtype == torch.float32:
            x, weight = rounded(x), rounded(weight)
        return convolve(x, weight, *options)

    monkeypatch.setattr(F, "conv2d", conv2d)
    return


def error() -> float:
    """Of smc_conv2d's float32 result, of its norm."""
    call = sample_calls("reference")["smc_conv2d"]
    result, exact = call.results_and_gradients()[0], call.results_and_gradients(torch.float64)[0]
    return float((result - exact).norm() / exact.norm())


def test_rounding() -> None:
    one = torch.tensor([1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, -3.0])
    assert rounded(one).tolist() == [1 + 2**-10, 1, 1 + 2**-9, 1 + 2**-10, -3.0]


def test_the_tests_of_the_kernels_run_without_tf32() -> None:
    """As every test beside this one, by conftest.py; with TF32 their tolerances do not hold."""
    tolerance = 2 * TOLERANCES[torch.float32][1]
    assert error() < tolerance / 2
    with tf32(True):
        assert error() > 2 * tolerance
    assert error() < tolerance / 2


@pytest.mark.parametrize("switches", [True, False])
def test_the_check_switches_tf32_off(
    switches: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m litevae_kernels --check` is right of a right backend, and would not be without that."""
    monkeypatch.setattr(program, "backends", lambda: {"reference": backends()["reference"]})
    if not switches:
        monkeypatch.setattr(program, "tf32", lambda allowed: nullcontext())
    with tf32(True):
        assert program.check() == (0 if switches else 1)
        assert torch.backends.cudnn.allow_tf32
    verdicts = {line.split()[1]: line.split()[2] for line in capsys.readouterr().out.splitlines() if line}
    assert verdicts["smc_conv2d"] == ("right" if switches else "WRONG")
    assert verdicts["smc_weight"] == "right"
