"""Are the README's numbers the recorded ones, and do the figures show them?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import figures, readme
from benchmarks.harness.report import RESULTS


def test_numbers_of_the_readme_are_the_recorded_ones():
    text = readme.README.read_text(encoding="utf-8")
    assert text.count("<!-- results: ") >= 4
    assert readme.filled(text) == text, "run python -m benchmarks.readme"


def test_a_changed_result_changes_the_readme(tmp_path: Path):
    for path in RESULTS.glob("*.json"):
        shutil.copy(path, tmp_path)
    text = readme.README.read_text(encoding="utf-8")
    assert readme.filled(text, tmp_path) == text
    path = tmp_path / "haar_dwt2d-cpu.json"
    document = json.loads(path.read_text())
    next(row for row in document["rows"] if row["row"] == "haar_dwt2d, cpu")["time_ms"] = 98765.4
    path.write_text(json.dumps(document))
    assert "98765.40" in readme.filled(text, tmp_path)


def test_every_device_has_its_table(tmp_path: Path):
    document = json.loads((RESULTS / "smc_conv2d-cpu.json").read_text())
    (tmp_path / "smc_conv2d-cpu.json").write_text(json.dumps(document))
    document["rows"][0]["time_ms"] = 12.0
    (tmp_path / "smc_conv2d-nvidia-h200.json").write_text(json.dumps(document))
    filled = readme.filled("a\n<!-- results: smc_conv2d -->\n<!-- /results -->\nb", tmp_path)
    assert filled.startswith("a\n<!-- results: smc_conv2d -->\n\n| SMC")
    assert filled.count("| bare `conv2d` |") == 2
    assert filled.index("| bare `conv2d` | 12 |") < filled.rindex("| bare `conv2d` |")


def test_an_unknown_block_is_refused():
    with pytest.raises(ValueError, match=r"must name one of table3, .*got 'tabel3'"):
        readme.filled("<!-- results: tabel3 --><!-- /results -->")


def encoder_row(name: str, dtype: str, memory: float, speed: float) -> dict[str, object]:
    row: dict[str, object] = {"row": f"{name}, {dtype}", "live_to_vae": memory, "speed_to_vae": speed}
    return row | ({"paper_mb_to_vae": 0.356, "paper_speed_to_vae": 1.9} if name == "LiteVAE-B" else {})


def test_figure_of_table_3_has_a_point_for_each_encoder():
    pytest.importorskip("matplotlib")
    names = ["VAE", "LiteVAE-B", "LiteVAE-B as in the paper", "TAESD"]
    rows = [
        encoder_row(name, dtype, 1 / (index + 1), index + 1.5)
        for dtype in ("float32", "bfloat16")
        for index, name in enumerate(names)
    ]
    document = {"rows": rows, "settings": {"resolution": "256x256"}, "conditions": {"machine": "a CPU"}}
    panels = figures.table3(document).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["float32", "bfloat16"]
    for axes in panels:
        points = {legend.get_label(): legend.get_offsets().tolist() for legend in axes.collections}
        assert points == {
            "LiteVAE, this library": [pytest.approx([1 / 2, 2.5])],
            "LiteVAE, the paper's Table 3": [pytest.approx([0.356, 1.9])],
            "other encoders, here": [pytest.approx(at) for at in ([1, 1.5], [1 / 3, 3.5], [1 / 4, 4.5])],
        }


def test_figures_are_written_beside_their_results(tmp_path: Path):
    pytest.importorskip("matplotlib")
    shutil.copy(RESULTS / "table3_encoders-cpu.json", tmp_path)
    assert figures.write(tmp_path) == [tmp_path / "table3_encoders-cpu.png"]
    assert (tmp_path / "table3_encoders-cpu.png").read_bytes().startswith(b"\x89PNG")
