"""Are the compared encoders what their rows say?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness.checks import check_rounding, relative_error
from benchmarks.rivals import encoders


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.no_grad()
def test_the_paper_encoder_is_ours_written_plainly(precision: str):
    pytest.importorskip("ptwt")
    torch.manual_seed(0)
    dtype = getattr(torch, precision)
    plain, ours = encoders.PaperEncoder(encoders.litevae("S")).to(dtype), encoders.litevae("S").to(dtype)
    ours.load_state_dict(plain.encoder.state_dict())
    image = (torch.rand(2, 3, 32, 48) * 2 - 1).to(dtype)
    expected, actual = plain(image), ours(image)
    if precision == "float32":
        assert relative_error(actual, expected) < 1e-5
    else:
        exact = plain.float()(image.float())
        check_rounding("ours", precision, [actual], [expected], [exact])


def test_convolutions_are_those_that_run(monkeypatch: pytest.MonkeyPatch):
    """Each with its own shapes, recorded on meta tensors and found again when the encoder runs."""
    recorded = encoders.convolutions_of("LiteVAE-S", 1, 16)
    ran = []

    def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        first = [value if isinstance(value, int) else value[0] for value in (stride, padding)]
        ran.append((tuple(x.shape), tuple(weight.shape), bias is not None, *first))
        return original(x, weight, bias, stride, padding, dilation, groups)

    original = F.conv2d
    monkeypatch.setattr(F, "conv2d", conv2d)
    encoders.litevae("S").eval()(torch.zeros(1, 3, 16, 16))
    assert ran == [tuple(convolution) for convolution in recorded]
    ran.clear()
    encoders.Convolutions(recorded, "cpu", torch.float32)(torch.empty(0))
    assert ran == [tuple(convolution) for convolution in recorded]


def test_rows_are_built_in_their_own_form():
    pytest.importorskip("diffusers")
    compiled = encoders.build("LiteVAE-B, torch.compile", "cpu")
    assert compiled._compiled_call_impl is not None
    vae: nn.Module = encoders.build("VAE, channels_last", "cpu", torch.bfloat16)
    weight = next(parameter for parameter in vae.parameters() if parameter.dim() == 4)
    assert weight.dtype == torch.bfloat16
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not vae.training
