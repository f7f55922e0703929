"""Are results those of the model itself, whether the evaluation was interrupted, repeated or compared?"""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from litevae.data import DataError, protocol
from litevae.evaluation import instruments, report_card
from litevae.evaluation.lpips_networks import build_lpips
from litevae.evaluation.metrics import lpips_distance, psnr, ssim
from litevae.evaluation.report import check_results
from litevae.evaluation.request import Comparison, Request, parse
from litevae.evaluation.set_metric import Batch
from litevae.evaluation.wavelet_distance import FWD
from litevae.evaluation.weights import WeightSource
from litevae.loading import load_autoencoder

from .. import children
from ..own_place import one_thread, own_place  # noqa: F401  (fixtures)
from . import small
from .test_instruments import Corners

NETWORKS = ["lpips-vgg", "lpips-alex", "rfid", "kid"]
FILES = ["images", "report.html", "results.json", "results.md", "scores.csv"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images whose features were computed, by a network that is quickly made and changes with them all."""
    counts: list[int] = []

    class Counted(Corners):
        def _features(self, images: Tensor) -> Tensor:
            counts.append(len(images))
            return super()._features(images)

    monkeypatch.setattr(instruments, "build_inception", lambda metric, source: Counted(nn.Identity(), source))
    return counts


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_model(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_crops(tmp_path_factory.mktemp("data") / "crops", 5)


def evaluate(model: Path | str, data: Path, *words: str, load: Any = load_autoencoder) -> int:
    request = parse([str(model), str(data), "--workers", "0", "--device", "cpu", *words])
    assert isinstance(request, Request)
    return report_card.evaluate(request, load, ["litevae.evaluate", *words])


def both(model: Path, crops: Path, size: int) -> tuple[Tensor, Tensor]:
    """(images, reconstructions), [N, 3, size, size], in the order of names."""
    pixels = [protocol("ldm").view(Image.open(path), size) for path in sorted(crops.iterdir())]
    images = torch.stack(pixels).float() / 127.5 - 1
    with torch.no_grad():
        return images, load_autoencoder(model)(images, sample_posterior=False).sample.clamp(-1, 1)


def test_results_are_those_of_the_model_itself(model: Path, crops: Path, tmp_path: Path) -> None:
    assert evaluate(model, crops, "--sizes", "64,32", "--output", "out", "--label", "mine") == 0
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    results = small.results_in(folder)
    check_results(results)
    assert list(results["sizes"]) == ["32", "64"]
    assert results["model"]["label"] == "mine"
    assert results["data"] | {"hash": ""} == {"name": str(crops), "images": 5, "skipped": {}, "hash": ""}
    assert list(results["unavailable"]) == ["lpips-vgg", "lpips-alex", "rfid", "kid", "fid-dinov2", "ifid"]
    table = list(csv.DictReader((folder / "scores.csv").open()))
    assert sorted(row["name"] for row in table) == sorted([f"{index:03d}.png" for index in range(5)] * 2)
    for size, measured in results["sizes"].items():
        images, reconstructions = both(model, crops, int(size))
        for name, metric in (("psnr", psnr), ("ssim", ssim)):
            expected = metric(reconstructions, images)
            assert measured["metrics"][name] == pytest.approx(expected.mean().item(), rel=1e-5)
            own = {row["name"]: float(row[name]) for row in table if row["size"] == size}
            assert [own[image] for image in sorted(own)] == pytest.approx(expected.tolist(), rel=1e-4)
        fwd = FWD()
        fwd.add(Batch(tuple(range(5)), images, reconstructions))
        assert measured["metrics"]["fwd"] == pytest.approx(fwd.values()["fwd"], rel=1e-3)  # pixels may round otherwise
        assert set(measured["details"]) == {"mmd", "spectrum", "equivariance", "statistics"}
    assert [item["rank"] for item in results["gallery"]] == ["worst", "worst", "median", "best", "best"]
    worst = min((row for row in table if row["size"] == "64"), key=lambda row: float(row["psnr"]))
    assert results["gallery"][0]["name"] == worst["name"]
    for item in results["gallery"]:
        for kind, edge in (("original", 64), ("reconstruction", 64), ("error", 64), ("latent", 8)):
            assert Image.open(folder / item[kind]).size == (edge, edge)
    original = np.asarray(Image.open(folder / results["gallery"][0]["original"]))
    view = protocol("ldm").view(Image.open(crops / worst["name"]), 64)
    assert (original == view.permute(1, 2, 0).numpy()).all()


def test_networks_of_random_weights_are_named_so(model: Path, tmp_path: Path) -> None:
    crops = small.save_crops(tmp_path / "crops", 3)
    words = ("--sizes", "32,64", "--metrics", ",".join(NETWORKS), "--random-weights")
    assert evaluate(model, crops, *words, "--output", "out") == 0
    results = small.results_in(tmp_path / "out")
    for measured in results["sizes"].values():
        assert list(measured["metrics"]) == [f"{name}-random-weights" for name in NETWORKS]
    metrics, source = results["sizes"]["32"]["metrics"], WeightSource(random=True)
    images, reconstructions = both(model, crops, 32)
    lpips = lpips_distance(build_lpips("lpips-alex", source), reconstructions, images).mean().item()
    assert metrics["lpips-alex-random-weights"] == pytest.approx(lpips, rel=1e-4)
    network = instruments.build_inception("rfid", source)
    one, other = (network(((x + 1) * 127.5).round().byte()).double().numpy() for x in (images, reconstructions))
    # tr((S1 S2)^(1/2)) is the sum of the singular values of A B^T / (N - 1), for S = A^T A / (N - 1)
    root = np.linalg.svd((one - one.mean(0)) @ (other - other.mean(0)).T / 2, compute_uv=False).sum()
    traces = one.var(0, ddof=1).sum() + other.var(0, ddof=1).sum()
    distance = ((one.mean(0) - other.mean(0)) ** 2).sum() + traces - 2 * root
    assert metrics["rfid-random-weights"] == pytest.approx(distance, rel=1e-3)  # a pixel may round otherwise


def interrupted_at(batch: int, number: int) -> Any:
    """A `load` of a model that gets a signal while it encodes this batch, from 1."""

    def load(name: str, subfolder: str | None) -> nn.Module:
        loaded: Any = load_autoencoder(name, subfolder)
        encode, calls = loaded.encode, []

        def encode_once_more(images: Tensor) -> Any:
            calls.append(len(images))
            if len(calls) == batch + 1:  # the first was to try it
                signal.raise_signal(number)
            return encode(images)

        loaded.encode = encode_once_more
        return loaded

    return load


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("latent", ["--mode", "--sample"])
def test_an_interrupted_evaluation_goes_on(
    model: Path, crops: Path, tmp_path: Path, number: int, code: int, latent: str, seen: list[int]
) -> None:
    words = ("--sizes", "32,48", "--batch-size", "2", "--random-weights", latent, "--metrics", f"rfid,{small.ALL_OWN}")
    assert evaluate(model, crops, *words, "--output", "unbroken") == 0
    (tmp_path / "cache").rename(tmp_path / "cache-of-another")

    with children.default_signals():
        for batch, left in ((2, ["32-process-0.pt"]), (3, ["32.json", "48-process-0.pt"])):
            assert evaluate(model, crops, *words, load=interrupted_at(batch, number)) == code
            partial = tmp_path / "evaluations" / "tiny-crops" / "partial"
            assert sorted(path.name for path in partial.iterdir()) == [*left, "request.json"]
    assert evaluate(model, crops, *words) == 0
    folder = tmp_path / "evaluations" / "tiny-crops"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert small.numbers_in(folder) == small.numbers_in(tmp_path / "unbroken")


def test_statistics_of_originals_are_used_again(model: Path, crops: Path, tmp_path: Path, seen: list[int]) -> None:
    words = ("--sizes", "32", "--metrics", "rfid,psnr", "--random-weights")
    other = small.save_model(tmp_path / "other", seed=1)
    assert evaluate(other, crops, *words, "--output", "first") == 0
    assert sum(seen) == 10  # originals and reconstructions
    (tmp_path / "cache").rename(tmp_path / "kept")
    seen.clear()
    assert evaluate(model, crops, *words, "--output", "alone") == 0
    assert sum(seen) == 10
    (tmp_path / "cache").rename(tmp_path / "cache-of-alone")
    (tmp_path / "kept").rename(tmp_path / "cache")
    seen.clear()
    assert evaluate(model, crops, *words, "--output", "again") == 0
    assert sum(seen) == 5  # reconstructions alone
    assert small.numbers_in(tmp_path / "again") == small.numbers_in(tmp_path / "alone")
    assert small.numbers_in(tmp_path / "again") != small.numbers_in(tmp_path / "first")


def test_an_image_that_changed_unseen_is_noticed(
    model: Path, tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_card, "source_key", lambda source: "as before")
    words = ("--sizes", "32", "--metrics", "rfid,psnr", "--random-weights", "--batch-size", "2")
    crops = small.save_crops(tmp_path / "crops", 5)
    assert evaluate(model, crops, *words, "--output", "first") == 0
    Image.open(crops / "003.png").rotate(90).save(crops / "003.png")
    with pytest.warns(UserWarning, match="is of other images than those that were read; the statistics .* computed ag"):
        assert evaluate(model, crops, *words, "--output", "changed") == 0
    seen.clear()
    assert evaluate(model, crops, *words, "--output", "again") == 0
    assert sum(seen) == 5  # those that were computed again were kept
    monkeypatch.setenv("LITEVAE_CACHE", str(tmp_path / "empty"))
    assert evaluate(model, crops, *words, "--output", "alone") == 0
    expected = small.numbers_in(tmp_path / "alone")
    for name in ("changed", "again"):
        assert small.numbers_in(tmp_path / name) == expected
    assert expected["sizes"] != small.numbers_in(tmp_path / "first")["sizes"]


def test_ifid_mixes_with_images_of_training(model: Path, crops: Path, tmp_path: Path, seen: list[int]) -> None:
    training = small.save_crops(tmp_path / "training", 12)
    words = ("--sizes", "32", "--metrics", "ifid,rfid", "--random-weights", "--training-data")
    assert evaluate(model, crops, *words, str(training), "--output", "out") == 0
    metrics = small.results_in(tmp_path / "out")["sizes"]["32"]["metrics"]
    assert metrics["ifid-random-weights"] > 0
    assert metrics["ifid-random-weights"] != metrics["rfid-random-weights"]
    with pytest.raises(ValueError, match="training_latents must hold at least 10 latents, got 5"):
        evaluate(model, crops, *words, str(crops), "--output", "few")
    with pytest.raises(DataError, match="--training-data: DATA must name a folder of images, got nowhere"):
        evaluate(model, crops, *words, "nowhere", "--output", "few")
    assert not (tmp_path / "few").exists()


def test_metrics_of_the_latent_alone_need_no_gallery(model: Path, crops: Path, tmp_path: Path) -> None:
    assert evaluate(model, crops, "--sizes", "32", "--metrics", "fwd,mmd", "--output", "out") == 0
    results = small.results_in(tmp_path / "out")
    check_results(results)
    assert list(results["sizes"]["32"]["metrics"]) == ["fwd"]
    assert results["gallery"] == []
    assert list(results["sizes"]["32"]["details"]) == ["mmd"]


@pytest.mark.filterwarnings("ignore:skipped .unreadable")
def test_what_was_skipped_is_counted_also_before_an_interruption(model: Path, tmp_path: Path) -> None:
    crops = small.save_crops(tmp_path / "crops", 4)
    (crops / "001.png").write_bytes(b"not an image")

    words = ("--sizes", "32", "--batch-size", "2", "--metrics", "psnr")
    with children.default_signals():
        assert evaluate(model, crops, *words, load=interrupted_at(1, signal.SIGTERM)) == 143
    assert evaluate(model, crops, *words) == 0
    results = small.results_in(tmp_path / "evaluations" / "tiny-crops")
    assert results["data"]["skipped"] == {"unreadable": 1}
    assert results["data"]["images"] == results["sizes"]["32"]["images"] == 3


def test_a_latent_without_noise_or_at_a_sixteenth(crops: Path, tmp_path: Path) -> None:
    """Statistics of sub-bands: no noise, no finite KL. The baseline beside a latent has its resolution."""
    small.save_model(tmp_path / "dwt", encoder_type="dwt", latent_channels=12)
    small.save_model(tmp_path / "f16", wavelet_levels=(1, 2, 3, 4), block_out_channels=(16,) * 5)
    found = {}
    for name in ("dwt", "f16", "bicubic-16x"):
        metrics = "psnr" if name == "bicubic-16x" else small.ALL_OWN
        given = name if name == "bicubic-16x" else tmp_path / name
        assert evaluate(given, crops, "--sizes", "32", "--metrics", metrics, "--output", f"of-{name}") == 0
        found[name] = small.results_in(tmp_path / f"of-{name}")
    assert {name: results["model"]["downsampling"] for name, results in found.items()} == {
        "dwt": 8,
        "f16": 16,
        "bicubic-16x": 16,
    }
    assert (found["dwt"]["model"]["encoder_parameters"], found["bicubic-16x"]["model"]["label"]) == (0, "bicubic-16x")
    statistics = found["dwt"]["sizes"]["32"]["details"]["statistics"]
    assert statistics["kl"] is None
    assert statistics["posterior_stds"] == 12 * [0.0]
    assert statistics["channel_stds"] == statistics["stds_of_means"]
    assert (tmp_path / "of-dwt" / "report.html").is_file()


def test_models_are_compared(model: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--sizes", "32", "--metrics")
    assert evaluate(model, crops, *words, "psnr,mmd", "--output", "a") == 0
    assert evaluate("bicubic", crops, *words, "psnr", "--output", "b", "--label", "the baseline") == 0
    assert evaluate("bicubic", crops, *words, "psnr", "--output", "c", "--protocol", "adm") == 0
    capsys.readouterr()
    a, b, c = (tmp_path / name / "results.json" for name in "abc")
    assert report_card.compare(Comparison((a, b.parent), tmp_path / "both")) == 0
    assert capsys.readouterr().out == f"written   {tmp_path}/both/report.html\n"
    page = (tmp_path / "both" / "report.html").read_text()
    for results in map(small.results_in, (a.parent, b.parent)):
        assert results["model"]["label"] in page
        assert f"{results['sizes']['32']['metrics']['psnr']:.2f}" in page
    with pytest.raises(ValueError, match=r"--output must name a folder without report\.html"):
        report_card.compare(Comparison((a, b), tmp_path / "both"))
    with pytest.raises(
        ValueError, match=r"protocol\.name must be the same .* got 'ldm' of the baseline and 'adm' of bi"
    ):
        report_card.compare(Comparison((b, c), tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    for _ in range(2):
        report_card.compare(Comparison((a, b), None))
    assert sorted(path.name for path in (tmp_path / "evaluations").iterdir()) == ["comparison", "comparison-2"]
