"""Does memory grow as the encoder says, is a wrong result refused, and does the figure show every row?"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import bench_growth as bench
from benchmarks import figures
from benchmarks.harness.report import Results, document


def stored_table() -> dict[str, Any]:
    """A table whose times grow linearly, and memory beside that of the parameters."""
    results = Results()
    for case in bench.ROWS:
        row: dict[str, Any] = {**dataclasses.asdict(case), "megapixels": case.megapixels}
        row["live_mb"] = 26 + 800 * (case.megapixels if case.slice_size is None else 0.5)
        if case.side <= 1024 and case.batch <= 8:
            row["time_ms"] = 1000 * case.megapixels
        results.add(bench.TABLE, case.label, row)
    return document(results.tables["growth"], {"machine": "A machine, 2 cores", "device": "cpu"})


@pytest.mark.parametrize("dtype", bench.DTYPES)
def test_memory_grows_with_the_pixels_alone(dtype: str):
    one, larger, batch = (bench.ImageBatch(*size, dtype).costs() for size in ((128, 1), (512, 1), (128, 16)))
    assert larger["live_mb"] == batch["live_mb"]
    assert larger["live_mb_per_megapixel"] == pytest.approx(one["live_mb_per_megapixel"], rel=0.01)
    assert larger["megapixels"] == 512**2 / 1e6


def test_memory_in_slices_is_that_of_a_slice():
    slice_mb, sliced_mb, whole_mb = (
        bench.ImageBatch(128, batch, "float32", slice_size).costs()["live_mb"]
        for batch, slice_size in ((8, None), (64, 8), (64, None))
    )
    others_mb = (64 - 8) * (3 * 128**2 + 2 * 8 * 16**2) * 4 / 1e6  # images, and twice the moments
    assert slice_mb < sliced_mb <= slice_mb + others_mb
    assert whole_mb > 5 * sliced_mb


@pytest.mark.parametrize("case", [bench.ImageBatch(16, 3, dtype, size) for dtype in bench.DTYPES for size in (None, 2)])
@torch.inference_mode()
def test_the_check_refuses_a_wrong_result(case: bench.ImageBatch, monkeypatch: pytest.MonkeyPatch):
    model, images, step = bench.encoding(case)
    bench.check(case, model, images)
    step()
    assert (model.slicing is not None) == (case.slice_size is not None)

    factor = 1.1 if case.dtype == "float32" else 1.25  # of images so small bfloat16 loses 5 % by itself

    def brighter(image: Tensor) -> Tensor:
        return encode(image) * (1 if os.environ.get("LITEVAE_KERNELS_BACKEND") == "reference" else factor)

    encode = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", brighter)
    with pytest.raises(AssertionError, match="result 1: relative error"):
        bench.check(case, model, images)


def test_the_rows_are_all_sizes_once():
    labels = [case.label for case in bench.ROWS]
    assert len(set(labels)) == len(labels) == len(bench.DTYPES) * (5 + 6 + 3)
    assert "16 x 256x256, slices of 8, bfloat16" in labels
    timed = len(labels) if bench.DEVICE.type == "cuda" else len(bench.DTYPES) * (4 + 3)
    assert sum(case.is_timed for case in bench.ROWS) == timed


def test_the_figure_shows_every_row(tmp_path: Path):
    pytest.importorskip("matplotlib")
    table = stored_table()
    *panels, _ = bench.figure(table).axes
    for axes, quantity in zip(panels, ("time_ms", "live_mb"), strict=True):
        drawn = {
            (round(float(x), 9), round(float(y), 9))
            for line in axes.lines
            if line.get_marker() != "None"
            for x, y in zip(*line.get_data(), strict=True)
        }
        stored = {(round(row["megapixels"], 9), round(row[quantity], 9)) for row in table["rows"] if row.get(quantity)}
        assert drawn == stored
    path = tmp_path / "growth-cpu.json"
    path.write_text(json.dumps(table))
    assert figures.write(tmp_path) == [path.with_suffix(".png")]
    assert (tmp_path / "growth-cpu.png").read_bytes().startswith(b"\x89PNG")


def test_linear_growth_is_a_line_through_the_largest_image():
    pytest.importorskip("matplotlib")
    panel = bench.figure(stored_table()).axes[0]
    linear = [line for line in panel.lines if line.get_marker() == "None"]
    assert len(linear) == len(bench.DTYPES)
    for line in linear:
        (first, last), (low, high) = line.get_data()
        assert low == pytest.approx(1000 * first)  # ms per megapixel of the stored table
        assert high == pytest.approx(1000 * last)
