"""Does every way to run diffusers' autoencoders compute the same, is a wrong one refused, and what does it hold?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks import bench_fuse as bench

EAGER = [way for way in bench.WAYS if way != bench.COMPILED]
NARROW = [part for part in bench.PARTS if part.precision != "tf32"]


@pytest.fixture(autouse=True)
def narrow_and_without_gradients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for layout in bench.LAYOUTS.values():
        monkeypatch.setitem(layout, "block_out_channels", (32, 32, 64, 64))
    bench.costs.cache_clear()
    with torch.no_grad():
        yield
    bench.costs.cache_clear()


@pytest.mark.parametrize("part", NARROW, ids=lambda part: part.label)
def test_every_way_passes_the_check_before_timing(part: bench.Part):
    inputs = part.inputs(2, 32, bench.DEVICE)
    for way in EAGER:
        bench.check(part, way, bench.call(part, bench.build(part, way, bench.DEVICE, part.dtype)), inputs)


def test_the_check_refuses_a_wrong_result():
    part = NARROW[0]
    decode = bench.call(part, bench.build(part, bench.FUSED, bench.DEVICE, part.dtype))
    with pytest.raises(AssertionError, match="SD decode, fused, float32, result 1: relative error"):
        bench.check(part, bench.FUSED, lambda latent: decode(latent) * (1 + 1e-3), part.inputs(1, 32, bench.DEVICE))


def test_layouts_are_the_published_ones():
    parts = {part.layout: bench.build(part, bench.YARDSTICK, "meta", part.dtype) for part in bench.PARTS}
    assert {name: vae.config.latent_channels for name, vae in parts.items()} == {"SD": 4, "FLUX": 16}
    assert {name: vae.quant_conv is None for name, vae in parts.items()} == {"SD": False, "FLUX": True}


def test_a_fused_part_holds_less():
    for part in (bench.Part("SD", "decode", "float32"), bench.Part("SD", "encode", "float32")):
        assert bench.costs(part, bench.FUSED)["live_mb"] < bench.costs(part, bench.YARDSTICK)["live_mb"]
