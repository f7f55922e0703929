"""Are the training steps that are compared of the same losses and gradients, and is the plain one plain?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import bench_training_step as bench
from benchmarks import measure
from litevae.models import blocks
from litevae_kernels.backends import choose_backend

SIDE = 16


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrower decoders, a batch of 2."""
    widths = (32, 32, 64, 64)
    preset = bench.LiteVAE.from_preset
    monkeypatch.setattr(bench, "BATCH", 2)
    monkeypatch.setitem(bench.SD_VAE, "block_out_channels", widths)
    monkeypatch.setattr(bench.LiteVAE, "from_preset", lambda name: preset(name, block_out_channels=widths))


@pytest.mark.parametrize("precision", bench.PRECISIONS)
@pytest.mark.parametrize("name", bench.MODELS)
def test_every_row_passes_the_check_before_timing(name: str, precision: str, small: None):
    side = SIDE if precision == "float32" else 4 * SIDE  # a mean over few pixels does not average roundings away
    bench.check(name, side, precision, bench.Training(name, side, precision))


def test_the_check_refuses_wrong_gradients(small: None):
    training = bench.Training("LiteVAE-S", SIDE, "float32")
    training.loss.config.wavelet_weight *= 1.1
    with pytest.raises(AssertionError, match="LiteVAE-S, result 1: relative error"):
        bench.check("LiteVAE-S", SIDE, "float32", training)


def test_the_yardstick_decodes_as_diffusers_does(small: None):
    training = bench.Training(bench.YARDSTICK, SIDE, "float32")
    output = training.model(training.image, sample_posterior=False)
    expected = training.model.vae(training.image, sample_posterior=False).sample
    torch.testing.assert_close(output.sample, expected, rtol=0, atol=0)
    assert output.wavelet.shape == (2, 12, SIDE // 2, SIDE // 2)
    torch.testing.assert_close(output.wavelet[:, :3], torch.nn.functional.avg_pool2d(expected, 2), rtol=0, atol=1e-6)


def test_a_step_frees_its_gradients_and_moves_no_weight(small: None):
    training = bench.Training("LiteVAE-S", SIDE, "float32")
    before = torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()])
    training.step()
    after = torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in training.model.parameters())
    assert training.gradient().norm() > 0


def test_plain_is_nchw_without_the_kernels(small: None, monkeypatch: pytest.MonkeyPatch):
    training = bench.Training(bench.PLAIN, SIDE, "float32")
    formats = []
    for module in training.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: formats.append(output.is_contiguous()))
            assert module.weight.is_contiguous()

    def kernel(*args: object, **kwargs: object) -> None:
        raise AssertionError("the plain step called the fused operator")

    monkeypatch.setattr(blocks, "group_norm_silu", kernel)
    training.step()
    assert len(formats) > 100
    assert all(formats)


def test_plain_operators_are_for_a_while():
    fused, default = blocks.group_norm_silu, choose_backend(None, bench.DEVICE.type)
    with bench.plain_operators():
        assert blocks.group_norm_silu is bench.group_norm_then_silu
        assert choose_backend(None, bench.DEVICE.type) == "reference"
    assert blocks.group_norm_silu is fused
    assert choose_backend(None, bench.DEVICE.type) == default


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (bench.YARDSTICK, 83_653_863),
        (bench.PLAIN, 6_753_252 + 49_490_179),
        ("LiteVAE-S", 1_038_308 + 49_490_179),
        ("LiteVAE-B", 6_753_252 + 49_490_179),
    ],
)
def test_parameters(name: str, parameters: int):
    assert measure.parameter_count(bench.build(name, "meta")) == parameters


def test_every_row_of_the_table_has_a_name_of_its_own():
    assert len(set(bench.TABLE.order)) == len(bench.MODELS) * len(bench.RESOLUTIONS) * len(bench.PRECISIONS)
