"""Does the encoder stay as small as it was made, and is the traffic counted right?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmarks import bench_memory as bench
from litevae_kernels import group_norm_silu


@pytest.mark.parametrize(
    ("name", "most_mb"),
    [("LiteVAE-B", 1700), ("LiteVAE-S", 680), ("LiteVAE-B, slices of 8", 600), ("LiteVAE-S, slices of 8", 200)],
)
def test_live_memory_stays_below(name: str, most_mb: float):
    assert bench.live_mb(name, torch.float32) < most_mb
    assert bench.live_mb(name, torch.bfloat16) < most_mb / 2


def test_live_memory_is_below_the_papers():
    pytest.importorskip("ptwt")
    assert bench.live_mb("LiteVAE-B", torch.float32) < 0.82 * bench.live_mb(bench.PAPER, torch.float32)


def test_traffic_counts_inputs_and_outputs():
    weight = torch.empty(3, 3, 1, 1, device="meta")
    image = 3 * bench.RESOLUTION**2 * 4

    def function(x: torch.Tensor) -> torch.Tensor:
        return F.silu(F.group_norm(F.conv2d(x, weight), 1)).add_(1).flatten(2)

    counted = bench.traffic(function)
    assert counted.calls == {"convolutions": 1, "GroupNorm": 1, "SiLU": 1, "sums": 1}
    assert counted.bytes["convolutions"] == 2 * image + 3 * 3 * 4
    assert counted.bytes["SiLU"] == counted.bytes["sums"] == 2 * image
    assert counted.bytes["GroupNorm"] == pytest.approx(3 * image, abs=100)


def test_traffic_of_a_norm_of_two_tensors():
    image = 3 * bench.RESOLUTION**2 * 4
    counted = bench.traffic(lambda x: group_norm_silu(x, 2, skip=x.repeat(1, 3, 1, 1)))
    assert counted.bytes["GroupNorm+SiLU"] == pytest.approx((2 * (1 + 3) + 4) * image, abs=100)


def test_traffic_of_the_encoders():
    pytest.importorskip("ptwt")
    ours, paper = bench.encoder_traffic(bench.OURS), bench.encoder_traffic(bench.PAPER)
    assert ours.calls["GroupNorm+SiLU"] == paper.calls["GroupNorm"] == paper.calls["SiLU"] == 112
    assert (ours.calls["DWT"], ours.calls["concatenations"]) == (1, 1)
    assert ours.calls["GroupNorm"] == ours.calls["SiLU"] == 0
    assert paper.calls["concatenations"] == 4 * 6 + 1
    assert ours.bytes.total() < 0.8 * paper.bytes.total()
