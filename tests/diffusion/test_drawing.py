"""Are samples functions of (seed, number), written where they should be, and measured as sets?"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litevae import sample, train

from .. import children
from ..evaluation import small

SHORT = [
    "train.steps=2", "train.schedule=constant", "train.batch_size=4", "train.log_every=2", "train.evaluate_every=2",
    "train.checkpoint_every=2",
    "data.crop_size=32", "data.evaluation_size=32", "data.workers=0", "sampling.steps=4", "sampling.images=2",
    "data.source=folder", "train.device=cpu", "train.tensorboard=false",
]  # fmt: skip
UNET = [
    "network.unet_channels=32", "network.unet_multipliers=[1,1]", "network.unet_blocks=1", "noise.objective=epsilon",
    "noise.times=uniform",
]  # fmt: skip
DIT = ["network.kind=dit", "network.dit_width=32", "network.dit_heads=2", "network.dit_depth=1"]
FLOW = ["noise.objective=flow", "noise.times=logit_normal", "network.classes=true", "sampling.guidance=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """unet: of noise, without classes; dit: a flow, of two classes; images: what both were trained on."""
    folder = tmp_path_factory.mktemp("sampled")
    small.save_model(folder / "model")
    small.save_crops(folder / "images" / "cat", 8)
    (folder / "images" / "dog").mkdir()
    for path in sorted((folder / "images" / "cat").iterdir())[4:]:
        path.rename(folder / "images" / "dog" / path.name)
    told = [f"autoencoder={folder / 'model'}", f"data.path={folder / 'images'}"]
    for name, network in (("unet", UNET), ("dit", [*UNET, *DIT, *FLOW])):
        assert train.main(["ldm-quickstart", *network, *SHORT, *told, f"run.dir={folder / name}"]) == 0
    return folder


def images_in(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


@pytest.mark.parametrize(
    "words",
    [["unet"], pytest.param(["unet", "--eta", "1"], marks=pytest.mark.slow), ["dit"], ["dit", "--sampler", "dpm"]],
)
def test_batches_and_processes_change_nothing(place: Path, tmp_path: Path, words: list[str]) -> None:
    """One process with batches of 5 and two with batches of 2 draw the same images, up to a level of 8 bits."""
    command = [str(place / words[0]), *words[1:], "--images", "5"]
    assert sample.main([*command, "--output", "one", "--batch-size", "5"]) == 0
    if words == ["unet", "--eta", "1"]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        options = ["--output", "two", "--batch-size", "2"]
        done = children.run([*launcher, "-m", "litevae.sample", *command, *options], timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written") == 1
    else:
        assert sample.main([*command, "--output", "two", "--batch-size", "2"]) == 0
    one, two = images_in(tmp_path / "one"), images_in(tmp_path / "two")
    assert one.shape == two.shape == (5, 32, 32, 3)
    assert np.abs(one.astype(int) - two).max() <= 1
    assert np.abs(one[0].astype(int) - one[1]).max() > 1
    assert sample.main([*command, "--output", "other", "--seed", "1"]) == 0
    assert np.abs(images_in(tmp_path / "other")[0].astype(int) - one[0]).max() > 1


def test_a_grid_goes_into_the_run_and_never_over_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("samples-3.png", "samples-3-2.png"):
        assert sample.main([str(place / "unet"), "--images", "5", "--seed", "3"]) == 0
        assert f"{name}: 5 images" in capsys.readouterr().out
        with Image.open(place / "unet" / name) as grid:
            assert grid.size == (3 * 36 - 4, 2 * 36 - 4)  # 3 columns and 2 rows of 32 pixels, 4 between them


def test_a_class_is_drawn_by_its_name(place: Path, tmp_path: Path) -> None:
    command = [str(place / "dit"), "--images", "4"]
    assert sample.main([*command, "--output", "all"]) == 0
    assert sample.main([*command, "--output", "dog", "--class", "dog"]) == 0
    assert sample.main([*command, "--output", "second", "--class", "1"]) == 0
    every, dogs, second = (images_in(tmp_path / name) for name in ("all", "dog", "second"))
    assert np.array_equal(dogs, second)
    assert np.abs(every[[1, 3]].astype(int) - dogs[[1, 3]]).max() <= 1  # cat and dog in turn


def test_samples_are_measured_against_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(place / "unet"), "--images", "6", "--output", "grid.png"]
    assert sample.main([*command, "--fid", str(place / "images"), "--random-weights"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"FWD +[\d.]+\n", output)
    assert re.search(r"fid.*random|FID.*random", output)
    assert re.search(r"noise +FWD [\d.]+ of noise, decoded\n", output)
    assert "against   8 images: 6 samples and as many images, each 32x32 by protocol ldm" in output
    Path("grid.png").unlink()
    assert sample.main([*command, "--fid", "run"]) == 0
    output = capsys.readouterr().out
    assert "FID       not measured: " in output
    assert "against   crops of 7 images" in output


BAD = [
    ("nowhere", "nowhere must be a diffusion run or a pipeline, with model_index.json, got no such folder"),
    ("{p}/images", "must be a diffusion run or a pipeline, with model_index.json, got a folder without"),
    ("{p}/unet --class cat", "--class must be left out for a model without classes, got 'cat'"),
    ("{p}/unet --guidance 2", "--guidance must be left out for a model without classes, got 2.0"),
    ("{p}/dit --class cow", "--class must be one of cat, dog, or a number below 2, got 'cow'"),
    ("{p}/unet --sampler euler", "sampling.sampler must be ddim or dpm for noise.objective=epsilon, got 'euler'"),
    ("{p}/dit --sampler ddim", "sampling.sampler must be euler or dpm for noise.objective=flow, got 'ddim'"),
    ("{p}/unet --images 2000", "--images must be at most 1024 for a grid, got 2000; name a folder with --output"),
    ("{p}/unet --eta 2", "--eta must be at least 0 and at most 1, got 2.0"),
    ("{p}/unet --output {p}/images", "--output must name an empty folder"),
    ("{p}/unet --images 9 --fid {p}/images", "--fid must name at least --images=9 images, got 8 images"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_requests(place: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(place.rglob("*.png"))
    assert sample.main(words.format(p=place).split()) == 2
    assert message in capsys.readouterr().err
    assert sorted(place.rglob("*.png")) == before


def test_an_unfinished_run_says_so(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text((place / "unet" / "config.yaml").read_text())
    assert sample.main(["run"]) == 2
    assert "run must be a finished diffusion run, got one without model/model_index.json" in capsys.readouterr().err


def test_the_saved_pipeline_names_its_parts(place: Path) -> None:
    index = json.loads((place / "dit" / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "DiTPipeline"
    assert index["vae"] == ["litevae.models.litevae", "LiteVAE"]
    assert index["id2label"] == {"0": "cat", "1": "dog"}
    assert json.loads((place / "unet" / "model" / "model_index.json").read_text())["_class_name"] == "LDMPipeline"


@pytest.mark.slow
def test_two_processes_measure_what_one_does(place: Path) -> None:
    """Though there is one batch, and so a process without samples."""
    command = [str(place / "unet"), "--images", "4", "--fid", str(place / "images"), "--batch-size", "8"]
    found = []
    for count in (1, 2):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        done = children.run([*launcher, "-m", "litevae.sample", *command, "--output", f"{count}.png"], timeout=100)
        assert done.returncode == 0, done.stderr
        found.append(re.findall(r"FWD +([\d.]+)", done.stdout))
    assert found[0] == found[1] != []


def test_the_recipe_s_eta_is_the_default(place: Path) -> None:
    from litevae.diffusion.drawing import _sampling
    from litevae.diffusion.sample_request import parse

    run = place / "eta"
    run.mkdir()
    (run / "config.yaml").write_text((place / "unet" / "config.yaml").read_text().replace("eta: 0.0", "eta: 1.0"))
    for words, eta in (([], 1.0), (["--eta", "0"], 0.0), (["--sampler", "dpm"], 0.0), (["--eta", "0.5"], 0.5)):
        assert _sampling(parse([str(run), *words])).eta == eta
