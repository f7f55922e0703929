"""Does the comparison train every row and show what the runs wrote?"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import comparison, figures
from litevae import train

TINY = [
    "model.block_out_channels=[32,32,32,32]",
    "model.layers_per_block=1",
    "data.crop_size=16",
    "data.evaluation_size=32",
    "data.source=photographs",
    "train.steps=2",
    "train.log_every=1",
    "train.evaluate_every=1",
]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows, small, without a process for each."""

    def run(arguments: list[str]) -> None:
        assert train.main(arguments) == 0

    monkeypatch.setattr(comparison, "train", run)
    rows = {name: comparison.ROWS[name] for name in ("SD-VAE", "LiteVAE-S")}
    monkeypatch.setattr(comparison, "ROWS", rows)
    monkeypatch.setattr(comparison, "SD_ENCODER", "model.encoder_channels=[32,32,32,32]")


@pytest.mark.usefixtures("in_process")
def test_rows_have_the_numbers_of_their_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert comparison.main(["small", *TINY, "--results", str(tmp_path), "--runs", str(runs)]) == 0
    document = json.loads((tmp_path / "comparison-cpu.json").read_text())
    sd, lite = document["rows"]
    for row, folder in ((sd, "sd-vae"), (lite, "litevae-s")):
        lines: list[dict[str, Any]] = [
            json.loads(line) for line in (runs / folder / "metrics.jsonl").read_text().splitlines()
        ]
        evaluations = [line for line in lines if line["kind"] == "evaluation"]
        assert row["curve"] == [[line["step"], line["psnr"]] for line in evaluations]
        assert row["psnr"] == evaluations[-1]["psnr"]
        assert row["lpips_random_trunk"] == evaluations[-1]["lpips_random_trunk"]
        assert row["images_per_second"] == [line for line in lines if line["kind"] == "train"][-1]["images_per_second"]
    assert (sd["speed_to_sd"], lite["encoder_m"]) == (1, pytest.approx(1.038308))
    assert lite["speed_to_sd"] == lite["images_per_second"] / sd["images_per_second"]
    assert document["settings"]["steps"] == 2
    axes = figures.comparison(document).axes
    assert [line.get_ydata()[-1] for line in axes[0].lines] == [sd["psnr"], lite["psnr"]]
    assert (tmp_path / "comparison-cpu.png").stat().st_size > 10_000


def test_rows_trained_for_minutes_go_on_and_stand_beside_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[Path, int] = {}
    told: list[Sequence[str]] = []

    def stopped(arguments: Sequence[str], seconds: float | None = None) -> None:
        """The files of a run whose time is over after two steps."""
        resumed = arguments[0] == "--resume"
        folder = Path(arguments[1]) if resumed else Path(arguments[-1].removeprefix("run.dir="))
        assert resumed == (folder in steps)
        told.append(arguments[2:] if resumed else ["new"])
        assert seconds == (30 if comparison.ENDLESS in arguments else None)
        step = steps[folder] = steps.get(folder, 0) + (2 if seconds else 1)
        for place in ("checkpoints", "model"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / f"checkpoints/step-{step:06}.pt").touch()
        lines = [{"kind": "train", "images_per_second": 8.0 if "litevae" in folder.name else 2.0}]
        lines += [{"kind": "evaluation", "step": step, "psnr": 20.0, "ssim": 0.5, "lpips_random_trunk": 0.1}]
        with (folder / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def rows(label: str) -> list[tuple[Any, ...]]:
        options = ["--minutes", "0.5", "--only", label, "--results", str(tmp_path), "--runs", str(tmp_path / "runs")]
        assert comparison.main([*options, "small"]) == 0
        document = json.loads((tmp_path / "comparison_minutes-cpu.json").read_text())
        return [(row["row"], row["step"], row.get("speed_to_sd")) for row in document["rows"]]

    monkeypatch.setattr(comparison, "train", stopped)
    monkeypatch.setattr(comparison, "parameters", lambda folder: {})
    assert rows("LiteVAE-S") == [("LiteVAE-S", 3, None)]
    assert rows("LiteVAE-S") == [("LiteVAE-S", 6, None)]
    assert told == [["new"], ["train.steps=3"], [comparison.ENDLESS], ["train.steps=6"]]
    assert rows("SD-VAE") == [("SD-VAE", 3, 1.0), ("LiteVAE-S", 6, 4.0)]


def test_a_run_is_told_to_stop_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    for signalled, code in (("exit 143", 0), ("exit 1", 1)):
        program.write_text(f"#!/bin/sh\ntrap '{signalled}' TERM\nwhile :; do sleep 0.05; done\n")
        program.chmod(0o755)
        monkeypatch.setattr(comparison.sys, "executable", str(program))
        with pytest.raises(subprocess.CalledProcessError) if code else contextlib.nullcontext():
            comparison.train(["comparison"], seconds=0.5)


def test_rows_share_everything_but_what_their_names_say() -> None:
    """The same decoder, steps, data; Stable Diffusion's encoder at its own widths."""
    from litevae.runs.recipes import load_config
    from litevae.training.config import RunConfig

    common = comparison.SIZES["small"]
    configs = {label: load_config(RunConfig, "comparison", [*own, *common]) for label, own in comparison.ROWS.items()}
    first = configs["LiteVAE-B"]
    for label, config in configs.items():
        start = "wavelet" if "wavelet start" in label else first.train.initialization
        assert config.train == replace(first.train, initialization=start)
        assert config.data == first.data
        assert (config.loss == first.loss) == ("high-frequency" not in label)
        assert config.model.architecture.block_out_channels == first.model.architecture.block_out_channels


def test_places_that_cannot_be_written_to_are_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(comparison, "run", lambda *_: pytest.fail("it worked before it checked"))
    for option in ("--results", "--runs"):
        assert comparison.main([option, str(tmp_path / "file")]) == 2
        assert capsys.readouterr().err.startswith(f"error: {option} must be a folder, got {tmp_path / 'file'}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.stepz=3"], "unknown key train.stepz; did you mean train.steps?"),
        (["train.steps=1e3"], "train.steps must be a whole number such as 1000, got '1e3'"),
        (["model.dropout=0.1"], "model.dropout must be left out with model.kind=sd-vae"),  # of one row among others
        (["--minutes", "nan"], "argument --minutes: must be a finite number above 0, got nan"),
    ],
)
def test_options_that_a_row_cannot_have_are_refused_first(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(comparison, "run", lambda *_: pytest.fail("it worked before it checked"))
    with contextlib.suppress(SystemExit):  # argparse's, which also has code 2
        assert comparison.main(["small", *options, "--results", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
