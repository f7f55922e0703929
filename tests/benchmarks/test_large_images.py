"""Does the benchmark of large images measure every row, and is the bound that it shows kept at a smaller size?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import large_images as bench


@pytest.mark.slow
def test_a_row_is_measured_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"rows, small": (256, 512, 0), "tiles of 16, small": (256, 512, 16)}
    monkeypatch.setattr(bench, "ROWS", sizes)
    monkeypatch.setattr(bench, "TABLE", dataclasses.replace(bench.TABLE, order=list(sizes)))
    assert bench.main(["--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("large_images-*.json")
    rows = {row["row"]: row for row in json.loads(path.read_text())["rows"]}
    assert list(rows) == list(sizes)
    for row in rows.values():
        assert 0 < row["peak_mib"] < 512
        assert row["seconds"] > 0
    assert rows["rows, small"]["file_mb"] > 0


def test_the_file_is_the_image(tmp_path: Path) -> None:
    row = bench.run(64, 128, 0, tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert image.size == (64, 128)
    assert row["file_mb"] == (tmp_path / "image.png").stat().st_size / 1e6


@pytest.mark.slow
def test_tiles_and_rows_are_near_the_whole() -> None:
    """Within the rounding of some forty layers; on most machines the bits are the same."""
    assert all(distance < 2e-5 for distance in bench.difference(256).values())
