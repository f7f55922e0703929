"""Does a measured number fill the row that it is of, and never another?"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae import LiteVAE
from litevae.evaluation.mmd import MMD, MMDOptions
from litevae.evaluation.set_metric import Batch
from litevae.models.baseline import StableDiffusionVAE
from litevae.paper_tables.contents import ROWS
from litevae.paper_tables.measurements import Measurement, read

from .documents import B_4, B_12, METRICS, VAE_12, results, write, write_run

BASE = "1-imagenet128-12-litevae"
SAME = [name for name, (_, row) in ROWS.items() if row.same_as == BASE]


def rows(found: list[Measurement]) -> list[str]:
    return [measurement.row for measurement in found]


def test_invented_models_have_the_parameters_of_real_ones() -> None:
    with torch.device("meta"):
        models = [LiteVAE.from_preset("B", latent_channels=12), LiteVAE.from_preset("B")]
        vae = StableDiffusionVAE.from_architecture(latent_channels=12)
    counts = [sum(parameter.numel() for parameter in model.encoder.parameters()) for model in models]
    assert counts == [B_12["encoder_parameters"], B_4["encoder_parameters"]]
    assert vae.quant_conv is not None
    parts = (vae.encoder, vae.quant_conv)
    assert sum(p.numel() for part in parts for p in part.parameters()) == VAE_12["encoder_parameters"]


def test_a_label_that_is_an_id_fills_that_row_and_those_of_the_same_run(tmp_path: Path) -> None:
    write(tmp_path / "evaluations" / "a", results(BASE))
    write(tmp_path / "evaluations" / "b", results("8-adaptive", s128={"psnr": 11.0}))
    found, unused = read([str(tmp_path)])
    assert (rows(found), unused) == ([BASE, *SAME, "8-adaptive"], [])
    assert {name for name in SAME if name.startswith(("2a", "4", "9", "14"))} == {
        "2a-litevae-b", "4-group-norm", "9-wavelet", "14-lpips"
    }  # fmt: skip
    by_row = {measurement.row: measurement for measurement in found}
    assert by_row[BASE].cells == ["99.88", "0.322", "21.99", "0.654"]
    assert by_row["2a-litevae-b"].cells == ["6.758", "99.88", "0.322", "21.99", "0.654"]
    assert by_row["8-adaptive"].cells == ["", "", "11.00", ""]
    assert (by_row[BASE].data, by_row[BASE].images, by_row[BASE].protocol) == ("photographs", 2, "ldm, mode")
    assert "decoder 49.49 M" in by_row[BASE].model


def test_a_label_that_is_no_id_fills_nothing(tmp_path: Path) -> None:
    write(tmp_path / "x", results("litevae-b"))
    found, (reason,) = read([str(tmp_path)])
    assert found == []
    assert reason.endswith("x/results.json fills no row: its label 'litevae-b' is no row's id")


def test_a_row_that_is_named_is_filled_whatever_the_label(tmp_path: Path) -> None:
    path = write(tmp_path / "x", results("mine"))
    for place in (path, tmp_path / "x", tmp_path):
        found, unused = read([f"4-group-norm={place}"])
        assert (rows(found), unused) == (["4-group-norm"], [])  # not the row whose run it would be


@pytest.mark.parametrize(
    ("row", "document", "message"),
    [
        ("1-imagenet128-litevae", results("x"), "have 4 latent channels, got 12"),
        (BASE, results("x", B_4), "have 12 latent channels, got 4"),
        ("2a-vae", results("x"), "be of a AutoencoderKL, got 'LiteVAE'"),
        ("6-sd-vae", results("x", B_4, s256=METRICS), "be of a AutoencoderKL, got 'LiteVAE'"),
        (BASE, results("x", VAE_12), "be of a LiteVAE, got 'AutoencoderKL'"),
        ("2a-litevae-s", results("x"), "be of an encoder of 1,040,628 parameters, got 6757876"),
        (
            BASE,
            results("x", {**B_12, "encoder_parameters": None}),
            "be of an encoder of 6,757,876 parameters, got None",
        ),
        (BASE, results("x", s256=METRICS), "be measured at 128x128, got '256x256'; add --sizes"),
        ("18-nafnet", results("x"), "be of an encoder of 6,776,884 parameters, got 6757876"),
        ("12-dwt", results("x", s256=METRICS), "be of an encoder of 0 parameters, got 6757876"),
        ("7-ffhq-ldm", results("x"), "be of a model that can be made here .*, got 'x'"),
        ("23-litevae-s", results("x"), "be of a row of autoencoders, got '23-litevae-s'"),
        ("3-vae", results("x"), "be of a row of autoencoders, got '3-vae'"),
    ],
)
def test_another_model_than_the_rows_is_refused(
    row: str, document: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "x", document)
    with pytest.raises(ValueError, match=rf"results.json for row {row} must {message}"):
        read([f"{row}={path}"])
    write(tmp_path / "y", {**document, "model": {**document["model"], "label": row}})
    found, unused = read([str(tmp_path / "y")])
    assert found == []
    assert len(unused) == 1


def test_an_encoder_with_its_1x1_convolution_is_the_same(tmp_path: Path) -> None:
    assert rows(read([f"17-with={write(tmp_path / 'x', results('x', B_4, s256=METRICS))}"])[0]) == ["17-with"]


def test_an_unknown_row_is_an_error_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x", results("x"))
    with pytest.raises(ValueError, match=r"a row must be called by its id, got '4-smcc'; did you mean 4-smc\?"):
        read([f"4-smcc={path}"])


def test_places_without_results_are_errors(tmp_path: Path) -> None:
    rule = "--results must lead to results.json or metrics.jsonl or table3_encoders-"
    with pytest.raises(ValueError, match=rule):
        read([str(tmp_path)])
    with pytest.raises(ValueError, match=r"--results must lead to results.json or metrics.jsonl, got '.*none'"):
        read([f"4-smc={tmp_path / 'none'}"])
    write(tmp_path / "a", results("x"))
    write(tmp_path / "b", results("x"))
    with pytest.raises(ValueError, match=r"ROW_ID=PATH must lead to one results.json, got .*; name one of them"):
        read([f"4-smc={tmp_path}"])


def test_files_that_are_no_results_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {**results(BASE), "format": 2})
    with pytest.raises(ValueError, match=r"results.json: format must be 1, got 2"):
        read([f"{BASE}={path}"])
    path.write_text("[1")
    with pytest.raises(ValueError, match=r"results.json must be JSON"):
        read([f"{BASE}={path}"])
    document = results(BASE)
    del document["protocol"]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"results.json: protocol must be an object, got None; evaluate again"):
        read([f"{BASE}={path}"])


def test_mmd_fills_table_6_with_its_spread(tmp_path: Path) -> None:
    """As the metric writes it, for the sigmas that were asked for."""
    document = results("1-imagenet256-litevae", B_4, s256={"psnr": 20.0})
    metric = MMD(MMDOptions(sigmas=(25, 50.0, 500), draws=3))
    latents = torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    metric.add(Batch(tuple(range(5)), latents[:, :3], latents[:, :3], latents, latents, torch.ones_like(latents)))
    document["sizes"]["256"]["details"] = metric.values()
    write(tmp_path / "x", document)
    (measurement,) = [found for found in read([str(tmp_path)])[0] if found.row == "6-litevae"]
    first, second, last = (f"{row['mmd']:.2f}±{row['mmd_plus_minus']:.2f}" for row in metric.values()["mmd"]["rows"])
    assert first not in (second, "0.00±0.00")
    assert measurement.cells == [first, second, "", "", last]


def test_a_run_fills_the_row_it_is_called_by(tmp_path: Path) -> None:
    """With its last evaluation, at its own resolution; its LPIPS is VGG16's unless it says a random trunk."""
    overrides = ["model.latent_channels=12", "data.path=~/pictures"]
    image = {"psnr": 1.0}
    lines: list[dict[str, Any]] = [
        {"kind": "evaluation", "step": 0, "psnr": 9.0, "images": {"a": image}},
        {"kind": "train", "step": 5},
        {
            "kind": "evaluation",
            "step": 10,
            "psnr": 19.5,
            "ssim": 0.5,
            "lpips": 0.25,
            "images": {"a": image, "b": image},
        },
    ]
    write_run(tmp_path / BASE, "imagenet128", overrides, lines)
    write_run(tmp_path / "5-128-tuned-stage1", "imagenet128", ["data.path=x"], lines[1:2])
    found, (reason,) = read([str(tmp_path)])
    assert rows(found) == [BASE, *SAME]
    assert found[0].cells == ["", "0.250", "19.50", "0.500"]
    assert (found[0].data, found[0].images) == ("held out of ~/pictures", 2)
    assert found[0].protocol == "the run's own, step 10"
    assert "'5-128-tuned-stage1' is no row's id" in reason
    assert rows(read([f"9-wavelet={tmp_path / BASE}"])[0]) == ["9-wavelet"]


def test_a_run_on_photographs_of_any_size_fills_no_row(tmp_path: Path) -> None:
    line = {"kind": "evaluation", "step": 0, "psnr": 9.0, "images": {"a": {}}}
    write_run(tmp_path / "2a-litevae-s", "quickstart", ["model.latent_channels=12"], [line])
    found, (reason,) = read([str(tmp_path)])
    assert found == []
    assert "must be measured at 128x128, got 'images at their own sizes'" in reason


def test_an_evaluation_below_a_run_comes_before_the_runs_own(tmp_path: Path) -> None:
    line = {"kind": "evaluation", "step": 0, "psnr": 9.0, "images": {"a": {}}}
    write_run(tmp_path / BASE, "imagenet128", ["model.latent_channels=12", "data.path=x"], [line])
    write(tmp_path / BASE / "evaluation", results(BASE))
    found, _ = read([f"{BASE}={tmp_path / BASE}"])
    assert found[0].cells[2] == "21.99"


def test_the_benchmark_fills_table_3(tmp_path: Path) -> None:
    """The rows that the paper has, and no other encoder or layout; only a GPU's memory is the paper's quantity."""
    names = ["VAE, float32", "VAE, channels_last, float32", "LiteVAE-S, bfloat16", "TAESD, float32"]
    names += ["LiteVAE-B as in the paper, float32"]
    values = {"parameters_m": 1.0383, "img_per_s": 12.345, "live_mb": 99.0, "batch": 4}
    document = {
        "settings": {"resolution": "256x256", "batch": "the column's"},
        "conditions": {"machine": "a CPU"},
        "rows": [{"row": name, **values} for name in names],
    }
    document["rows"][2]["cuda_mib"] = 1000.0
    (tmp_path / "table3_encoders-any.json").write_text(json.dumps(document))
    found, unused = read([str(tmp_path)])
    assert (rows(found), unused) == (["3-vae", "3-litevae-s"], [])
    assert [measurement.cells for measurement in found] == [["1.038", "", "12.35"], ["1.038", "1049", "12.35"]]
    assert found[1].protocol == "256x256, bfloat16, batch 4; a CPU"


def test_the_recorded_benchmark_fills_table_3() -> None:
    recorded = Path(__file__).parents[2] / "benchmarks" / "results" / "table3_encoders-cpu.json"
    filled = set(rows(read([str(recorded)])[0]))
    assert filled == {name for name in ROWS if name.startswith("3-")}
