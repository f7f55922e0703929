"""Are the costs of Table 3's encoders that no machine changes the known ones?"""

from __future__ import annotations

import pytest
import torch

from benchmarks import bench_table3_encoders as bench


@pytest.mark.parametrize(
    ("name", "parameters", "gmac"),
    [
        ("LiteVAE-S", 1_038_308, 5.76),
        ("LiteVAE-B", 6_753_252, 37.84),
        ("LiteVAE-M", 32_752_740, 223.99),
        ("LiteVAE-L", 41_424_996, 232.86),
        ("LiteVAE-B as in the paper", 6_753_252, None),  # ptwt's wavelets are convolutions
        ("VAE", 34_163_664, 135.29 + 1.0737),  # convolutions and projections; q k^T and its product with v
        ("TAESD", 1_222_532, None),
        ("DC-AE", 153_027_104, None),
        ("LiteVAE-B, NAFNet", 6_772_260, None),
        ("LiteVAE-B, ViT", 5_901_348, None),
        ("LiteVAE-B, last two levels", 5_062_268, None),
        ("LiteVAE-B, SMC encoder", 6_734_820, 37.84),  # folded: without norms,
        ("DWT", 0, 0.0),
    ],
)
def test_parameters_and_arithmetic(name: str, parameters: int, gmac: float | None):
    if package := bench.ROWS[name].package:
        pytest.importorskip(package)
    costs = bench.costs(name, torch.float32)
    assert costs["parameters_m"] == parameters / 1e6
    assert gmac is None or costs["gmac"] == pytest.approx(gmac, abs=0.005)


def test_live_memory_of_the_vae_is_five_activations():
    """At full resolution: the stage's input, a ResBlock's input, its branch, their sum, and the scaled sum."""
    pytest.importorskip("diffusers")
    activation, images = 32 * 128 * 256 * 256 * 4, 32 * 3 * 256 * 256 * 4
    expected = 5 * activation + images + 34_163_664 * 4
    assert bench.costs("VAE", torch.float32)["live_mb"] == expected / 1e6


def test_live_memory_halves_in_bfloat16():
    single, half = (bench.costs("LiteVAE-S", dtype)["live_mb"] for dtype in (torch.float32, torch.bfloat16))
    assert half == pytest.approx(single / 2, rel=0.01)


def test_paper_ratios_are_as_quoted():
    _, vae_mb, vae_speed = bench.PAPER["VAE"]
    _, mb, speed = bench.PAPER["LiteVAE-B"]
    assert mb / vae_mb == pytest.approx(0.356, abs=5e-4)
    assert speed / vae_speed == pytest.approx(1.90, abs=5e-3)


@pytest.mark.parametrize("name", bench.VARIANTS)
@torch.inference_mode()
def test_the_check_takes_every_variant(name: str):
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32, device=bench.DEVICE) * 2 - 1
    bench.check(name, "float32", bench.encoders.build(name, bench.DEVICE), image)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.inference_mode()
def test_the_check_refuses_wrong_moments(precision: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "RESOLUTION", 32)
    dtype = bench.DTYPES[precision]
    torch.manual_seed(0)
    encoder = bench.encoders.build("LiteVAE-S", bench.DEVICE, dtype)
    image = (torch.rand(1, 3, 32, 32, device=bench.DEVICE) * 2 - 1).to(dtype)
    bench.check("LiteVAE-S", precision, encoder, image)
    encoder.register_forward_hook(lambda module, inputs, moments: moments * 1.25)
    with pytest.raises(AssertionError, match="LiteVAE-S, result 1: relative error"):
        bench.check("LiteVAE-S", precision, encoder, image)
