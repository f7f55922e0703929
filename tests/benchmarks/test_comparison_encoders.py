"""Does the comparison of encoders give every run its steps, once, and show their mean and spread?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import comparison_encoders as comparison
from litevae.runs.recipes import load_config
from litevae.training.config import RunConfig

TWO = ["LiteVAE-B", "LiteVAE-B, ViT"]


def test_rows_differ_in_the_model_alone() -> None:
    configs = [load_config(RunConfig, "comparison", [*own, *comparison.COMMON]) for own in comparison.ROWS.values()]
    first, *others = configs
    for config in others:
        assert (config.train, config.data, config.loss) == (first.train, first.data, first.loss)
        assert config.model != first.model


def test_held_out_images_are_fixed_crops_and_dead_leaves() -> None:
    names, again = ([item.name for item in comparison.held_out()] for _ in range(2))
    assert len(set(names)) == 2 * comparison.PER_SOURCE
    assert names == again
    first, second = (next(comparison.held_out()).image for _ in range(2))
    assert first.shape == (3, comparison.CROP, comparison.CROP)
    assert (first == second).all()


def test_every_run_has_its_steps_and_none_is_trained_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def train(arguments: Sequence[str], folder: Path) -> None:
        """The files of a run: row B trains 4 images a second, the other 2."""
        told.append(f"{folder.parent.name}/{folder.name}")
        (folder / "checkpoints").mkdir(parents=True)
        (steps,) = [int(word.partition("=")[2]) for word in arguments if word.startswith("train.steps=")][-1:]
        (folder / f"checkpoints/step-{steps:06}.pt").touch()
        speeds = (1.0, 4.0 if folder.parent.name == "litevae-b" else 2.0)
        lines = [json.dumps({"kind": "train", "images_per_second": speed}) for speed in speeds]
        (folder / "metrics.jsonl").write_text("\n".join(lines))

    monkeypatch.setattr(comparison, "train", train)
    monkeypatch.setattr(comparison, "encode_speed", lambda folder: 3.0)
    monkeypatch.setattr(comparison, "parameters", lambda folder: {"encoder_m": 1.0})
    quality = {"seed-5": {"psnr": 20.0, "ssim": 0.5, "fwd": 2.0}, "seed-6": {"psnr": 22.0, "ssim": 0.7, "fwd": 1.0}}
    monkeypatch.setattr(comparison, "quality", lambda folder: quality[folder.name[:6]])
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    for _ in range(2):
        assert comparison.main(["--minutes", "0.5", "--seeds", "5", "6", "--only", *TWO, *places]) == 0
    assert sorted(told) == sorted(
        f"{row}/{run}"
        for row, steps in (("litevae-b", 60), ("litevae-b-vit", 30))
        for run in ("speed", f"seed-5-steps-{steps}", f"seed-6-steps-{steps}")
    )
    rows = json.loads((tmp_path / "comparison_encoders-cpu.json").read_text())["rows"]
    assert [(row["row"], row["steps"]) for row in rows] == [(TWO[0], 60), (TWO[1], 30)]  # 30 s, 2 images a step
    assert [(row["psnr"], row["psnr_spread"], row["fwd"], row["fwd_seeds"]) for row in rows] == [
        (21.0, 1.0, 1.5, [2.0, 1.0])
    ] * 2
    assert (tmp_path / "comparison_encoders-cpu.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_failed_run_is_named_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"litevae.train nothing failed, see .*seed-0.log: .*nothing"):
        comparison.train(["nothing"], tmp_path / "seed-0")
    with pytest.raises(SystemExit):
        comparison.main(["--minutes", "0", "--runs", str(tmp_path)])


def test_wrong_options_are_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.main(["train.stepz=3", "--runs", str(tmp_path)]) == 2
    assert "unknown key train.stepz" in capsys.readouterr().err
