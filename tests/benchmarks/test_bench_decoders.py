"""Do the decoders that are compared compute the same, is a wrong one refused, and are their costs the known ones?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from benchmarks import bench_decoders as bench
from benchmarks.rivals import encoders
from litevae_kernels.precision import tf32

EAGER = [name for name in bench.DECODERS if name != bench.COMPILED]


@pytest.fixture(autouse=True)
def small_and_without_gradients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hundredth of the arithmetic: narrower decoders, and a latent of 4x4."""
    widths = (32, 32, 64, 64)
    presets = bench.LiteVAE.from_preset
    monkeypatch.setitem(encoders.SD_VAE, "block_out_channels", widths)
    monkeypatch.setattr(
        bench.LiteVAE, "from_preset", lambda name, **chosen: presets(name, block_out_channels=widths, **chosen)
    )
    with torch.no_grad():
        yield


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", EAGER)
def test_every_decoder_passes_the_check_before_timing(name: str, precision: str):
    dtype = bench.DTYPES[precision]
    latent = bench.latents(2, bench.DEVICE, name, dtype, side=32)
    bench.check(name, precision, bench.build(name, bench.DEVICE, dtype), latent)


@pytest.mark.parametrize("name", EAGER)
def test_the_check_refuses_a_wrong_decoder(name: str):
    class Brighter(nn.Module):
        def __init__(self, decoder: nn.Module) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, latent: torch.Tensor) -> torch.Tensor:
            return self.decoder(latent) * (1 + 1e-3)

    latent = bench.latents(1, bench.DEVICE, name, torch.float32, side=32)
    with pytest.raises(AssertionError, match=f"{name}, float32, result 1: relative error"):
        bench.check(name, "float32", Brighter(bench.build(name, bench.DEVICE)), latent)


def test_channels_last_is_the_memory_format_of_weights_and_latent():
    name = "SD decoder, channels_last"
    weights = bench.build(name, "cpu").state_dict()
    assert all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in weights.values() if weight.ndim == 4
    )
    assert bench.latents(1, "cpu", name, torch.float32, side=32).is_contiguous(memory_format=torch.channels_last)


def test_tf32_is_a_setting_for_a_while():
    before = torch.backends.cudnn.allow_tf32
    with tf32(not before):
        assert torch.backends.cudnn.allow_tf32 is not before
        assert torch.backends.cuda.matmul.allow_tf32 is not before
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (bench.YARDSTICK, 49_490_179 + 4 * 4 + 4),  # post_quant_conv
        (bench.COMPILED, 49_490_179 + 4 * 4 + 4),
        (bench.GROUP_NORM, 49_490_179),
        (bench.SMC, 49_478_047),
        (bench.FOLDED, 49_467_139),
    ],
)
def test_parameters_and_arithmetic(name: str, parameters: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # the real size, on meta tensors
    costs = bench.costs(name, torch.float32)
    assert costs["parameters_m"] == parameters / 1e6
    post_quant_conv = 4 * 4 * 32 * 32 if name.startswith("SD") else 0
    assert costs["gmac"] == (311_093_624_832 + post_quant_conv) / 1e9
    assert ("live_mb" in costs) == (name != bench.COMPILED)


def test_every_row_of_the_table_has_a_name_of_its_own():
    assert len(set(bench.TABLE.order)) == len(bench.DECODERS) * len(bench.DTYPES)
