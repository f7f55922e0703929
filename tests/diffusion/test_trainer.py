"""Does a diffusion run train, stop, resume and leave a pipeline, from pixels and from a cache?"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from litevae import StableDiffusionVAE, latents, train
from litevae.diffusion.config import DIT_CLASSES, NetworkConfig, NoiseConfig, SamplingConfig
from litevae.diffusion.networks import Denoiser, build_network
from litevae.diffusion.noise import noising
from litevae.diffusion.sample_quality import other_crops
from litevae.diffusion.sampling import draw, pipeline
from litevae.diffusion.trainer import DiffusionTrainer
from litevae.evaluation.set_metric import Batch
from litevae.evaluation.wavelet_distance import FWD
from litevae.pixels import to_float
from litevae.runs.processes import Processes
from litevae.runs.recipes import load_config

from .. import children
from ..evaluation import small

UNET = [
    "network.unet_channels=32", "network.unet_multipliers=[1,1]", "network.unet_blocks=1", "noise.objective=epsilon",
    "noise.times=uniform",
]  # fmt: skip
DIT = ["network.kind=dit", "network.dit_width=32", "network.dit_heads=2", "network.dit_depth=1"]
SHORT = [
    "train.steps=4", "train.schedule=constant", "train.batch_size=4", "train.log_every=2", "train.evaluate_every=2",
    "train.checkpoint_every=2",
    "train.ema_decay=0.5", "data.crop_size=32", "data.evaluation_size=32", "data.workers=0", "sampling.steps=2",
    "sampling.images=3", "data.source=folder", "train.device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model and other: autoencoders; images in two classes; cache: their latents of model."""
    folder = tmp_path_factory.mktemp("diffusion")
    small.save_model(folder / "model")
    small.save_model(folder / "other", seed=1)
    small.save_crops(folder / "images" / "cat", 12)
    (folder / "images" / "dog").mkdir()
    for path in sorted((folder / "images" / "cat").iterdir())[6:]:
        path.rename(folder / "images" / "dog" / path.name)
    words = [str(folder / "images"), "--model", str(folder / "model"), "--output", str(folder / "cache")]
    assert latents.main([*words, "--size", "32", "--shard-size", "5", "--workers", "0"]) == 0
    return folder


def words(place: Path, *more: str) -> list[str]:
    cached = any(word.startswith("autoencoder.cache=") for word in more)
    data = ["data.source=auto"] if cached else [f"data.path={place / 'images'}"]
    return ["ldm-quickstart", *UNET, *SHORT, f"autoencoder={place / 'model'}", *data, *more]


def checkpoint(run: str, step: int) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(Path(run, "checkpoints", f"step-{step:06d}.pt"), weights_only=True)
    return loaded


FROM = {"pixels": [], "cache": ["autoencoder.cache={p}/cache"]}


@pytest.mark.parametrize(
    ("network", "source"),
    [
        pytest.param(UNET, "pixels", marks=pytest.mark.slow),
        ([*DIT, "network.classes=true", "sampling.guidance=2"], "cache"),
        pytest.param(UNET, "cache", marks=pytest.mark.slow),
        pytest.param([*DIT, "network.classes=true", "sampling.guidance=2"], "pixels", marks=pytest.mark.slow),
        pytest.param([*DIT, "noise.objective=flow", "autoencoder.scale=scalar"], "pixels", marks=pytest.mark.slow),
    ],
)
def test_a_run_leaves_a_pipeline_that_draws_what_it_draws(place: Path, source: str, network: list[str]) -> None:
    more = [word.format(p=place) for word in FROM[source]]
    assert train.main(words(place, *network, *more, "run.dir=run")) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [0, 2, 4]
    assert all(len(line["levels"]) == 8 for line in evaluations)
    assert evaluations[0]["validation_loss"] != evaluations[-1]["validation_loss"]
    assert {path.name for path in Path("run").iterdir()} >= {"loss.png", "samples.png", "grids", "model"}
    with Image.open("run/samples.png") as grid:  # two columns of 32 pixels, 4 between them; data beside samples
        assert grid.size == ((2 * (2 * 36 - 4) + 24, 2 * 36 - 4) if source == "pixels" else (2 * 36 - 4, 2 * 36 - 4))

    output = children.run([sys.executable, "-c", PIPELINE, "images.pt"], timeout=100)
    assert output.returncode == 0, output.stderr
    from_pipeline = torch.load("images.pt")  # [3, 32, 32, 3] in [0, 1]

    config = load_config(DiffusionTrainer.schema, "run/config.yaml")
    run = DiffusionTrainer(config, DiffusionTrainer.folder_type(Path("run")), Processes("cpu"))  # type: ignore[arg-type]
    run.load(checkpoint("run", 4))
    noise = torch.randn(3, 4, 4, 4, generator=torch.manual_seed(0))
    assert len(set(run.latents.stds)) == (1 if run.config.autoencoder.scale == "scalar" else 4)
    labels = torch.tensor([0, 1, 1]) if run.config.network.classes else torch.full((3,), DIT_CLASSES)
    ours = draw(
        run.networks.kept.eval(), run.noising.scheduler(run.config.sampling), run.config.sampling, noise, labels
    )
    expected = (run.latents.decode(ours) / 2 + 0.5).permute(0, 2, 3, 1)
    torch.testing.assert_close(from_pipeline, expected, rtol=0, atol=2e-4)
    assert expected.std() > 0.01


PIPELINE = """
import sys
import torch
from litevae import LiteVAE
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained("run/model")
pipeline.set_progress_bar_config(disable=True)
told = {"num_inference_steps": 2, "output_type": "np", "generator": torch.manual_seed(0)}
if hasattr(pipeline, "transformer") and "all" in pipeline.labels:
    images = pipeline(class_labels=[1000] * 3, **told).images  # whatever the guidance
elif hasattr(pipeline, "transformer"):
    labels = [pipeline.labels["cat"], pipeline.labels["dog"], 1]
    images = pipeline(class_labels=labels, guidance_scale=2.0, **told).images
else:
    images = pipeline(batch_size=3, **told).images
torch.save(torch.from_numpy(images), sys.argv[1])
"""


def test_a_pipeline_does_not_say_where_its_autoencoder_was(tmp_path: Path) -> None:
    """A baseline's is diffusers' own model, which remembers the folder that it was loaded from."""
    made = StableDiffusionVAE.from_architecture(block_out_channels=(8, 8, 8, 8), layers_per_block=1)
    made.save_pretrained(tmp_path / "baseline")
    network = NetworkConfig(unet_channels=32, unet_multipliers=[1], unet_blocks=1)
    denoiser = Denoiser(build_network(network, 4, 8), classes=False)
    for means in ((0.0,) * 4, (0.1,) * 4):
        loaded = StableDiffusionVAE.from_pretrained(tmp_path / "baseline")
        about = (denoiser, noising(NoiseConfig()), SamplingConfig(), loaded, means, (1.0,) * 4, None)
        pipeline(*about).save_pretrained("pipeline")
        assert not [file for file in Path("pipeline").rglob("*.json") if str(tmp_path) in file.read_text()]


@pytest.mark.parametrize("source", [pytest.param("pixels", marks=pytest.mark.slow), "cache"])
def test_a_resumed_run_equals_an_unbroken_one(place: Path, source: str) -> None:
    more = [word.format(p=place) for word in FROM[source]]
    assert train.main(words(place, *more, "run.dir=whole", "train.steps=6")) == 0
    assert train.main(words(place, *more, "run.dir=broken", "train.steps=4", "train.schedule=constant")) == 0
    assert train.main(["--resume", "broken", "train.steps=6"]) == 0
    one, two = checkpoint("whole", 6), checkpoint("broken", 6)
    torch.testing.assert_close(one["model"], two["model"], rtol=0, atol=0)
    torch.testing.assert_close(one["ema"], two["ema"], rtol=0, atol=0)
    torch.testing.assert_close(one["optimizer"]["state"], two["optimizer"]["state"], rtol=0, atol=0)


@pytest.mark.slow
def test_a_run_killed_many_times_equals_an_unbroken_one(place: Path) -> None:
    """By SIGKILL, at any moment, in the middle of saves too."""
    assert train.main(words(place, "train.steps=2", "train.tensorboard=false", "run.dir=short")) == 0
    recipe = yaml.safe_load(Path("short/config.yaml").read_text())
    del recipe["run"]
    recipe["train"] |= {"steps": 5000, "schedule": "constant", "checkpoint_every": 3, "evaluate_every": 1000}
    Path("long.yaml").write_text(yaml.safe_dump(recipe))
    program = Path(__file__).parents[1] / "training" / "kill_repeatedly.py"
    done = children.run([sys.executable, str(program), "long.yaml", "killed", "6", "0"], timeout=240)
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout.splitlines()[-1])
    assert killed["steps"] == sorted(killed["steps"])  # nothing saved is ever lost
    assert killed["in_saves"] >= 1
    reached = killed["steps"][-1]
    assert reached > 3
    assert train.main(["--resume", "killed", f"train.steps={reached + 2}"]) == 0
    assert train.main(["long.yaml", f"train.steps={reached + 2}", "train.checkpoint_every=1000", "run.dir=whole"]) == 0
    one, two = checkpoint("whole", reached + 2), checkpoint("killed", reached + 2)
    for key in ("model", "ema", "optimizer"):
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)


def test_samples_are_measured_at_every_evaluation(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What metrics.jsonl says of the end is what the run's own samples and crops have."""
    measured = ["sampling.measured_images=6", "train.steps=2", "train.tensorboard=false"]
    assert train.main(words(place, *measured, "run.dir=run")) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    first, last = (line["fwd"] for line in lines if line["kind"] == "evaluation")
    said = capsys.readouterr()
    assert f"FWD       {first:.4g} before training, {last:.4g} after it, of 6 samples" in said.out
    assert said.err.count("fwd: 6 images are too few for Gaussians") == 1
    run = DiffusionTrainer(
        load_config(DiffusionTrainer.schema, "run/config.yaml"),  # type: ignore[arg-type]
        DiffusionTrainer.folder_type(Path("run")),  # type: ignore[arg-type]
        Processes("cpu"),
    )
    run.load(checkpoint("run", 2))
    metric = FWD()
    crops, _ = other_crops(run.config, 6)
    samples = torch.cat([images for _, images in run.draw("measured", 6)]).clamp(-1, 1)
    metric.add(Batch(tuple(range(6)), to_float(torch.stack(list(crops)[:6])), samples))
    assert metric.values()["fwd"] == pytest.approx(last, rel=1e-6)
    assert first != last
    # a run of an older version, which is told to measure, and so many samples that nothing before is comparable
    old = yaml.safe_load(Path("run/config.yaml").read_text())
    for section, key in (("sampling", "measured_images"), ("sampling", "metrics"), ("data", "dead_leaves_radius")):
        del old[section][key]
    Path("run/config.yaml").write_text(yaml.safe_dump(old))
    assert train.main(["--resume", "run", "train.steps=3", "sampling.measured_images=4"]) == 0
    line = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-2])
    assert (line["step"], line["measured_images"]) == (3, 4)
    assert "FWD" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sampling.metrics=[kid]", "sampling.metrics must be one of 'fwd', 'fid', got 'kid'"),
        ("sampling.metrics=[]", "sampling.metrics must name one, with sampling.measured_images"),
        ("sampling.metrics=[fid]", "error: fid needs weights-inception"),
        ("sampling.measured_images=1", "sampling.measured_images must be 0, or at least 2 to have a covariance, got 1"),
        ("autoencoder.cache={p}/cache", "sampling.measured_images must be 0 with autoencoder.cache"),
        (
            "data.crop_size=24",
            "error: fwd cannot be measured of samples with a side of 24: images for fwd must have sides",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    place: Path, word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["sampling.measured_images=6", "run.dir=run", word.format(p=place)]
    if word.startswith("data.crop_size"):
        told += [word.replace("crop", "evaluation"), "network.unet_multipliers=[1]"]
    assert train.main(words(place, *told)) == 2
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.slow
def test_two_processes_equal_one(place: Path) -> None:
    """Up to rounding, to which Adam gives the size of a whole step where the exact gradient is 0 (attention's keys)."""
    for count, name in ((1, "one"), (2, "two")):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        program = [sys.executable, *launcher, "-m", "litevae.train", *words(place, f"run.dir={name}")]
        done = children.run(program, timeout=200)
        assert done.returncode == 0, done.stderr
    before, one, two = (
        torch.cat([value.flatten() for value in checkpoint(run, step)["model"].values()])
        for run, step in (("one", 2), ("one", 4), ("two", 4))
    )
    assert 0 < (one - before).norm()
    assert (two - one).norm() < 0.1 * (one - before).norm()
    losses = [
        [line["loss"]["total"] for line in map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
         if line["kind"] == "train"]
        for run in ("one", "two")
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


BAD = [
    (["autoencoder={p}/nowhere"], "nowhere must be a run's folder"),
    (["autoencoder.cache={p}/images"], "must be a cache that litevae.latents has written"),
    (
        ["autoencoder={p}/other", "autoencoder.cache={p}/cache"],
        "must be of the latents of .*/other .*, got those of .*/model",
    ),
    (["network.classes=true"], "network.classes must be false for network.kind=unet"),
    ([*DIT, "network.dit_patch=3"], r"network.dit_patch must halve or cut the latent's side of 4 \(.*/model\) evenly"),
    (["network.unet_multipliers=[1,1,1,1]"], "network.unet_multipliers must halve or cut the latent's side of 4"),
    (["autoencoder.cache={p}/cache", "data.path={p}/images"], "data.path must be null with autoencoder.cache"),
    (["train.start_from=nowhere"], "train.start_from must name a diffusion run, with checkpoints, got 'nowhere'"),
    (["sampling.steps=1000"], "sampling.steps must be at most 500, got 1000"),
    (["data.evaluation_size=64"], "data.evaluation_size must be data.crop_size=32: the network is made for one size"),
    (["sampling.sampler=euler"], "sampling.sampler must be ddim or dpm for noise.objective=epsilon, got 'euler'"),
    (["sampling.guidance=2"], "sampling.guidance must be 1 without network.classes, got 2"),
    (["noise.times=logit_normal"], "noise.times must be uniform for noise.objective=epsilon"),
    (["autoencoder.path="], "autoencoder.path must not be empty"),
    (["model.size=S"], "unknown section 'model'"),
    ([*DIT, "network.classes=true", "data.path={p}/images/cat"], "network.classes must be false for data without"),
]


@pytest.mark.parametrize("dry", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("more", "message"), BAD)
def test_bad_requests_end_before_any_work(
    place: Path, more: list[str], message: str, dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    told = words(place, "run.dir=run", *(word.format(p=place) for word in more))
    assert train.main([*told, *(["--dry-run"] if dry else [])]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not Path("run").exists()


def test_an_autoencoder_that_was_trained_further_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save_model(tmp_path / "own")
    assert train.main(words(place, f"autoencoder={tmp_path / 'own'}", "run.dir=run", "train.steps=1")) == 0
    small.save_model(tmp_path / "own", seed=1)
    assert train.main(["--resume", "run", "train.steps=6"]) == 2
    assert re.search("autoencoder.path must be what run/checkpoints was trained with, sha256:", capsys.readouterr().err)


@pytest.mark.parametrize(
    "override", ["autoencoder.scale=scalar", pytest.param("autoencoder.sample=false", marks=pytest.mark.slow)]
)
def test_what_a_checkpoint_is_of_stays(place: Path, override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(words(place, "run.dir=run", "train.steps=1")) == 0
    before = Path("run/config.yaml").read_text()
    assert train.main(["--resume", "run", "train.steps=6", override]) == 2
    assert f"{override.partition('=')[0]} must be what run/checkpoints was trained with" in capsys.readouterr().err
    assert Path("run/config.yaml").read_text() == before
    cached = f"autoencoder.cache={place}/cache"
    assert train.main(words(place, "run.dir=next", "train.steps=1", "train.start_from=run", cached)) == 0
    assert train.main(words(place, "run.dir=flow", "train.start_from=run", "noise.objective=flow")) == 2
    assert "noise.objective must be what run was trained with, epsilon" in capsys.readouterr().err


def test_a_dry_run_says_what_a_step_costs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(words(place, "--dry-run")) == 0
    output = capsys.readouterr().out
    assert "kind: diffusion" in output
    assert re.search(r"network   [\d,]+ parameters, [\d.]+ GMAC for a latent of 4x4x4, forward", output)
    assert re.search(r"encoder   [\d.]+ GMAC for an image of 32x32: \d+% of a step's arithmetic", output)
    assert not Path("runs").exists()


def test_a_run_folder_knows_its_kind(place: Path) -> None:
    assert train.main(words(place, "run.dir=run", "train.steps=1")) == 0
    assert Path("run/config.yaml").read_text().startswith("kind: diffusion\n")
    assert train.main(["run/config.yaml", "run.dir=again"]) == 0
    assert noising(load_config(DiffusionTrainer.schema, "again/config.yaml").noise).config.objective == "epsilon"  # type: ignore[attr-defined]
    assert SamplingConfig().sampler_for("flow") == "euler"
