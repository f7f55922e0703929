"""Does `python -m litevae.paper` show, fill and draw what it is asked for, and refuse the rest in one line?"""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from litevae import LiteVAE
from litevae.paper import main


def results(label: str, side: int = 64) -> dict[str, Any]:
    metrics = {"psnr": 20.0, "ssim": 0.5}
    return {
        "format": 1,
        "model": {"label": label, "class": "LiteVAE", "encoder_parameters": 6_757_876, "latent_channels": 12},
        "data": {"name": "photographs", "images": 2, "hash": "sha256:01"},
        "protocol": {"name": "ldm"},
        "sizes": {str(side * factor): {"images": 2, "metrics": metrics} for factor in (1, 2)},
        "unavailable": {},
        "gallery": [],
        "versions": {},
        "command": [],
        "date": "2026-11-27",
    }


def written(folder: Path, document: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(document))
    return str(folder / "results.json")


def test_listing_table_and_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "**Table 24**" in capsys.readouterr().out
    assert main(["table", "2"]) == 0
    text = capsys.readouterr().out
    assert "# Table 2a:" in text
    assert "# Table 2b:" in text
    assert main(["figure", "5"]) == 0
    assert "# Figure 5:" in capsys.readouterr().out


def test_results_fill_a_table_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "a", results("4-smc"))
    written(tmp_path / "b", results("quickstart"))
    output = tmp_path / "table.md"
    assert main(["table", "4", "--results", str(tmp_path), "--output", str(output)]) == 0
    assert "| | measured |" in output.read_text()
    assert "| 20.00 | 0.500 |" in output.read_text()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("warning: ")
    assert "its label 'quickstart' is no row's id" in printed.err


def test_a_figure_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (written(tmp_path / name, results(name)) for name in "ab")
    output = tmp_path / "figure.png"
    assert main(["figure", "8", "--results", a, str(Path(b).parent), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"written   {output}\n"
    assert Image.open(output).width > 500


def test_feature_maps_are_drawn_of_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column for each model; two models of one name are called by their whole names."""
    for folder, normalization in (("a", "smc"), ("b", "group_norm")):
        model = LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8), layers_per_block=1,
                                    decoder_normalization=normalization)  # fmt: skip
        model.save_pretrained(tmp_path / folder / "model")
    models, output = [str(tmp_path / name / "model") for name in "ab"], tmp_path / "figure.png"
    assert main(["figure", "3", "--models", *models, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"written   {output}\n"
    assert Image.open(output).width == 2 * 650


def test_gradients_are_drawn_of_runs(tmp_path: Path) -> None:
    for folder in ("constant", "adaptive"):
        (tmp_path / folder).mkdir()
        lines = [{"kind": "train", "step": step, "gradient_ratio": {"adversarial": 3.0 + step}} for step in (10, 20)]
        (tmp_path / folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "figure.png"
    runs = [str(tmp_path / "constant"), str(tmp_path / "adaptive")]
    assert main(["figure", "7", "--runs", *runs, "--output", str(output)]) == 0
    assert Image.open(output).width > 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table", "25"], "table must be from 1 to 24, got 25"),
        (["figure", "10"], "figure must be from 1 to 9, got 10"),
        (["figure", "6", "--output", "x.png"], "figure must be of "),
        (["figure", "5", "--output", "x.png"], "figure 5 must be drawn from --results, got 'nothing'; e.g. python -m"),
        (["figure", "3", "--runs", "a", "--output", "x.png"], "figure 3 must be drawn from --models, got '--runs'"),
        (["figure", "5", "--results", "a"], "--output must name a picture for figure 5, got None; e.g. python -m"),
        (["figure", "3", "--models", "nowhere", "--output", "x.png"], "nowhere must be a run's folder, a folder wr"),
        (["figure", "3", "--models", "a", "a", "--output", "x.png"], "--models must name each once, got 'a a'"),
        (["figure", "7", "--runs", "a", "--output", "x.png"], "--runs must name folders of runs, got 'a'; it has no"),
        (["table", "2", "--output", "x.png"], "--output must end in .md, got x.png"),
        (["table", "2", "--output", "x.txt"], "--output must end in .md, got x.txt"),
        (["table", "2", "--results", "2a-litevae-q=x"], "a row must be called by its id, got '2a-litevae-q'; did you"),
        (["table", "2", "--results", "nowhere"], "--results must lead to results.json"),
    ],
)
def test_wrong_requests_end_with_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table"], "table and figure need a number, e.g. table 2"),
        (["table", "2", "--models", "a"], "--models and --runs are what figures are drawn from"),
    ],
)
def test_words_that_do_not_go_together(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
