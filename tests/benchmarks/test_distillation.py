"""Does the table of the distillation have a row for the teacher, each student and a full-size encoder?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import distillation
from litevae import StableDiffusionVAE


def test_a_wrong_teacher_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--teacher", str(tmp_path / "none"), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert distillation.main(words) == 2
    assert "none must be a run's folder" in capsys.readouterr().err


def test_turns_measure_every_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "SIDE", 16)
    calls: list[str] = []
    speeds = distillation.encode_speeds({name: lambda _, name=name: calls.append(name) for name in "ab"}, rounds=3)  # type: ignore[misc]
    assert calls == [*"ab"] * 4
    assert all(speed > 0 for speed in speeds.values())


@pytest.mark.slow
def test_a_short_distillation_fills_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(distillation, "ROUNDS", 1)
    torch.manual_seed(0)
    StableDiffusionVAE.from_architecture(block_out_channels=(8, 8, 8, 8)).save_pretrained(tmp_path / "teacher")
    runs = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    words = [
        "--teacher",
        str(tmp_path / "teacher"),
        *runs,
        "--only",
        "S",
        "--minutes",
        "0.001",
        "data.evaluation_size=32",
    ]
    assert distillation.main(words) == 0
    rows = {row["row"]: row for row in json.loads((tmp_path / "distillation-cpu.json").read_text())["rows"]}
    assert list(rows) == ["teacher", "LiteVAE-S", distillation.FULL_SIZE]
    student = rows["LiteVAE-S"]
    assert student["below_teacher"] == pytest.approx(rows["teacher"]["psnr"] - student["psnr"])
    assert student["encoder_m"] == pytest.approx(1.038308)
    assert (tmp_path / "distillation-cpu.png").exists()
    assert distillation.main(words) == 0  # what is finished is not trained again
