"""Does the benchmark of a diffusion step count what it says, and time every row on one network?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import diffusion_step as bench
from benchmarks import figures
from litevae.diffusion.config import NetworkConfig


def test_arithmetic_is_that_of_the_paper_s_encoders_and_ldm_s_unet() -> None:
    """Three times 24.3 GMAC; 5.8, 37.8 and 136.4 for the encoders, as other counters have them."""
    network = NetworkConfig()
    expected = {"LiteVAE-S": 5.8, "LiteVAE-B": 37.8, "SD-VAE": 136.4}
    for name, gmac in expected.items():
        with torch.device("meta"):
            row = bench.costs(name, network)
        assert row["encoder_gmac"] == pytest.approx(gmac, abs=0.06)
        assert row["network_gmac"] == pytest.approx(3 * 24.3, abs=0.4)
        assert row["mac_share"] == pytest.approx(gmac / (gmac + row["network_gmac"]), abs=0.002)
    assert "encoder_gmac" not in bench.costs(bench.CACHED, network)


def test_every_row_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SIZE", 64)
    small = lambda: bench.LiteVAE.from_preset("S", block_out_channels=(16,) * 4, layers_per_block=1)  # noqa: E731
    monkeypatch.setattr(bench, "AUTOENCODERS", {"LiteVAE-S": small, "LiteVAE-B": small, "SD-VAE": small})
    monkeypatch.setattr(figures, "write", lambda folder: [])
    network = ["--channels", "32", "--rounds", "2"]
    assert bench.main([*network, "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("diffusion_step-*.json")
    document = json.loads(path.read_text())
    rows = {row["row"]: row for row in document["rows"]}
    assert list(rows) == list(bench.ROWS)
    parameters = bench.network_costs(NetworkConfig(unet_channels=32), 4, 8)[0]
    for name, row in rows.items():
        assert row["live_mb"] * 1e6 > 4 * 4 * parameters  # parameters, gradients, two moments
        assert ("time_share" in row) == (name != bench.CACHED)
    assert figures.diffusion_step(document)
