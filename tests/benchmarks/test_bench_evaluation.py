"""Does the evaluation that is timed measure every image, by the metrics that it names?"""

from __future__ import annotations

import pytest
import torch

from benchmarks import bench_evaluation as bench
from benchmarks.harness.report import Results
from benchmarks.harness.schedule import Share
from litevae.evaluation.metrics import psnr
from litevae.pixels import to_float


def test_every_image_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "IMAGES", 6)
    monkeypatch.setattr(bench, "SIZE", 64)
    passing = bench.measurement(bench.NARROW, 4)
    assert list(passing.run()) == [4, 6]
    _, fwd = passing.set_metrics
    assert fwd.values()["fwd"] > 0
    assert fwd.sums["originals/images"] == 6
    image = to_float(passing.view(bench.Photographs().read(5)))[None]
    with torch.no_grad():
        expected = passing.model.model(image, sample_posterior=False).sample.clamp(-1, 1)
    # A batch is rounded otherwise than one image.
    assert passing.scores[5]["psnr"] == pytest.approx(psnr(expected, image).item(), rel=1e-4)
    assert passing.scores[5].keys() == {"psnr", "ssim"}


def test_the_ratio_is_that_of_the_times(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "IMAGES", 2)
    monkeypatch.setattr(bench, "SIZE", 32)
    called = []

    def time_interleaved(benchmark, step, rivals, share):
        step()
        rivals["forward"]()
        called.append(True)
        return bench.measure.Timing([4.0, 5.0, 6.0], {"forward": [2.0, 4.0, 5.4]}, 1)

    class Fixture:
        extra_info: dict[str, object] = {}  # noqa: RUF012

    monkeypatch.setattr(bench.measure, "time_interleaved", time_interleaved)
    results = Results()
    bench.test_evaluation(bench.ROWS[0], Fixture(), results, Share(end=0))
    row = results.tables["evaluation"].rows[bench.ROWS[0].label]
    assert called
    assert row["img_per_s"] == 2 / 5
    assert row["forward_img_per_s"] == 2 / 4
    assert row["ratio"] == pytest.approx(0.8)
