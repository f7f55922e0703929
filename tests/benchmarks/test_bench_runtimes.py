"""Do the runtimes that are compared compute the same, and is a wrong one refused?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("onnxscript")

from benchmarks import bench_runtimes as bench
from benchmarks.rivals.runtimes import RUNTIMES

NARROW = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "decoder_normalization": "smc"}
CASE = "decoder, smc folded"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.CASES, CASE, bench.Case("decoder", "S", 1, NARROW))
    bench.graph_of.cache_clear()


@pytest.mark.slow
@torch.no_grad()
def test_the_runtimes_pass_the_check_before_timing(tmp_path: Path) -> None:
    """Those that are installed; ONNX Runtime is, where the files can be exported."""
    latent = bench.batch_of(CASE, 64)
    path = tmp_path / "part.onnx"
    bench.write_onnx(bench.traced(bench.graph_of(CASE, torch.float32), latent, True), path, ("result",), "")
    checked = []
    for name, runtime in RUNTIMES.items():
        if not runtime.missing():
            result = runtime.make(path, runtime.precision)(latent)
            bench.check(name, runtime.precision, result, CASE, latent)
            with pytest.raises(AssertionError, match=f"{name}, result 1: relative error"):
                bench.check(name, runtime.precision, 1.3 * result, CASE, latent)
            checked.append(name)
    assert "ONNX Runtime" in checked


def test_every_row_of_the_table_has_a_name_of_its_own() -> None:
    assert len(set(bench.TABLE.order)) == len(bench.CASES) * len(bench.ROWS)
