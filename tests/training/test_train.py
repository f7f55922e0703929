"""Does the program train, stop, resume and refuse as it says?"""

import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae import LiteVAE, train
from litevae.runs.checkpoint import load_newest_checkpoint
from litevae.training import trainer
from litevae.training.networks import Networks
from litevae.training.trainer import Trainer

from .runs import ADVERSARIAL, assert_same_state, assert_same_training, checkpoint, logged

Run = Callable[..., tuple[int, Path]]


def test_run_learns_and_leaves_everything(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = run("run", "train.steps=40", "train.learning_rate=0.01", "train.log_every=1", "data.crop_size=32")
    assert code == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("config.yaml", "versions.json", "metrics.jsonl", "loss_and_psnr.png", "reconstructions.png"),
        *("checkpoints", "grids", "model", "tensorboard"),
    }
    lines = logged(folder, "train")
    assert [line["step"] for line in lines] == list(range(1, 41))
    first, last = (sum(line["loss"]["total"] for line in part) / 5 for part in (lines[:5], lines[-5:]))
    assert last < 0.9 * first
    evaluations = logged(folder, "evaluation")
    assert evaluations[-1]["psnr"] > evaluations[0]["psnr"] + 0.5
    model = LiteVAE.from_pretrained(folder / "model")
    torch.testing.assert_close(model.state_dict(), checkpoint(folder, 40)["model"], rtol=0, atol=0)
    text = capsys.readouterr().out
    assert f"{evaluations[0]['psnr']:.2f} dB" in text
    assert f"{evaluations[-1]['psnr']:.2f} dB" in text
    assert "the bicubic baseline" in text


def test_logged_losses_are_means_over_the_window(run: Run) -> None:
    _, one = run("one", "train.log_every=1")
    _, three = run("three", "train.log_every=3")
    each = [line["loss"] for line in logged(one, "train")]
    for window, line in enumerate(logged(three, "train")):
        for name, value in line["loss"].items():
            mean = sum(loss[name] for loss in each[3 * window : 3 * window + 3]) / 3
            assert value == pytest.approx(mean, rel=1e-6)


@pytest.mark.slow
def test_same_seed_same_run_other_seed_other_run(run: Run) -> None:
    states = [
        checkpoint(run(name, f"train.seed={seed}")[1], 6)["model"] for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    ]
    assert_same_state(states[0], states[1])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def poison(monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    """Make the Gaussian term NaN in these steps."""
    from litevae.losses import total

    blur, count = total.gaussian_high_pass_loss, iter(range(1, 10_000))
    monkeypatch.setattr(
        total, "gaussian_high_pass_loss", lambda *a, **k: blur(*a, **k) * (float("nan") if next(count) in steps else 1)
    )


def test_step_with_a_nan_is_skipped_named_and_counted(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(monkeypatch, range(3, 4))
    code, folder = run("run", "train.log_every=3", "train.steps=6")
    assert code == 0
    text = "warning: loss term gaussian is not finite at step 3: the autoencoder skipped it (1 skipped steps so far)"
    assert text in capsys.readouterr().err
    lines = logged(folder, "train")
    assert [line["skipped_steps"] for line in lines] == [1, 1]
    assert all(math.isfinite(value) for line in lines for value in line["loss"].values())
    assert all(torch.isfinite(value).all() for value in checkpoint(folder, 6)["model"].values())


def test_too_many_skipped_steps_end_the_run_and_name_the_term(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        poison(patch, range(3, 1000))
        code, folder = run("run", "train.max_skipped_steps=3", "train.steps=20")
    assert code == 1
    message = capsys.readouterr().err
    assert "error: loss term gaussian is not finite at step 6, and 4 steps in a row were skipped" in message
    assert f"--resume {folder} train.learning_rate=0.0005" in message
    good = checkpoint(folder, 2)["model"]
    assert_same_state(checkpoint(folder, 4)["model"], good)  # skipped steps changed nothing
    assert train.main(["--resume", str(folder), "train.steps=6"]) == 0
    assert not torch.equal(checkpoint(folder, 6)["model"]["decoder.conv_in.weight"], good["decoder.conv_in.weight"])


def test_model_that_is_lost_is_never_saved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever made a parameter infinite: the save looks at all of them."""
    average, count = Networks.average, iter(range(1, 1000))

    def overflowing(networks: Networks) -> None:
        average(networks)
        if next(count) == 4:
            next(networks.model.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(Networks, "average", overflowing)
    code, folder = run("run", "train.log_every=100", "train.evaluate_every=100")
    assert code == 1
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000000.pt", "step-000002.pt"]


def test_training_decodes_samples_and_evaluation_the_mode(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from litevae.models.latent import DiagonalGaussian

    drawn = []
    sample = DiagonalGaussian.sample

    def recorded(posterior: DiagonalGaussian, *args: Any) -> torch.Tensor:
        drawn.append(sample(posterior, *args))
        assert not torch.equal(drawn[-1], posterior.mode())
        return drawn[-1]

    monkeypatch.setattr(DiagonalGaussian, "sample", recorded)
    run("run")
    assert [latent.shape[0] for latent in drawn] == [2] * 6
    assert not torch.equal(drawn[0], drawn[1])


def test_no_parameter_is_left_out_of_the_graph(run: Run) -> None:
    """Every parameter of encoder and decoder moves in a few steps; none is left out of the graph."""
    _, folder = run("run")
    start, end = (checkpoint(run("start", "train.steps=1", "train.learning_rate=1e-30")[1], 1), checkpoint(folder, 6))
    still = [name for name, value in end["model"].items() if torch.equal(value, start["model"][name])]
    assert not still


def test_bfloat16_keeps_float32_parameters_and_moments(run: Run) -> None:
    code, folder = run("run", "train.mixed_precision=bf16")
    assert code == 0
    state = checkpoint(folder, 6)
    assert {value.dtype for value in state["model"].values()} == {torch.float32}
    assert {entry["exp_avg"].dtype for entry in state["optimizers"][0]["state"].values()} == {torch.float32}
    _, exact = run("exact")
    losses = [logged(path, "train")[-1]["loss"]["l1"] for path in (folder, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_unreadable_image_is_named_and_the_run_goes_on(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for photo in photos.iterdir():
        (folder / photo.name).write_bytes(photo.read_bytes())
    (folder / "1.png").write_bytes(b"not a picture")
    code, path = run("run", f"data.path={folder}")
    assert code == 0
    assert logged(path, "train")[-1]["skipped_images"] == 1
    assert f"warning: skipped (unreadable) {folder / '1.png'}" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_held_out_images_that_vanish_end_a_run_that_can_be_resumed(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With more than are kept in memory; with fewer, the run goes on."""
    for images, expected in ((17, (1, 4)), (16, (0, 6))):
        folder = tmp_path / f"photos-{images}"
        shutil.copytree(photos, folder)
        vanish = functools.partial((folder / "3.png").unlink, missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "log", lambda _, vanish=vanish: vanish())
            options = (f"data.path={folder}", f"data.evaluation_images={images}", "train.checkpoint_every=100")
            code, path = run(f"run-{images}", *options)
        assert (code, load_newest_checkpoint(path / "checkpoints")["step"]) == expected
        assert ("none of the 1 held-out" in (error := capsys.readouterr().err)) == ("--resume" in error) == bool(code)


def test_discriminator_that_cannot_judge_the_crops_is_refused_at_once(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = run("run", *ADVERSARIAL, "discriminator.resolution=64", "data.crop_size=24")
    assert code == 2
    assert "error: discriminator.kind=unet and data.crop_size: " in capsys.readouterr().err
    assert not folder.exists()


def test_best_checkpoint_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations after steps 0, 2, 4 ...; the second is made the best."""
    from litevae.evaluation.held_out import Evaluation

    values = iter([10.0, 30.0, 20.0, 21.0, 22.0])
    made: dict[int, tuple[Evaluation, float]] = {}  # holds them, so that no id is used twice

    def means(evaluation: Evaluation) -> dict[str, float]:
        if id(evaluation) not in made:
            made[id(evaluation)] = evaluation, next(values)
        return {"psnr": made[id(evaluation)][1], "ssim": 0.5}

    monkeypatch.setattr(Evaluation, "means", property(means))
    monkeypatch.setattr(trainer, "bicubic_baseline", lambda *_: Evaluation([]))
    monkeypatch.setattr(trainer, "introduction", lambda *_, **__: "")
    monkeypatch.setattr(trainer, "conclusion", lambda *_: "")
    monkeypatch.setattr(trainer, "run_facts", lambda *_: None)
    monkeypatch.setattr(trainer, "write_results", lambda *_: None)
    _, folder = run("run", "train.steps=8", "train.evaluate_every=2", "train.checkpoint_every=1", "train.log_every=1")
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-000002.pt", "step-000007.pt", "step-000008.pt"]
    assert checkpoint(folder, 8)["best"] == {"step": 2, "psnr": 30.0}


def test_averaged_weights_are_what_is_evaluated_and_kept(run: Run) -> None:
    _, folder = run("run", *ADVERSARIAL)
    state = checkpoint(folder, 6)
    assert not torch.equal(state["ema"]["decoder.conv_in.weight"], state["model"]["decoder.conv_in.weight"])
    assert_same_state(LiteVAE.from_pretrained(folder / "model").state_dict(), state["ema"])
    last = logged(folder, "evaluation")[-1]
    assert last["psnr"] != last["raw"]["psnr"]


def test_losses_of_a_whole_run_are_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Every term, from the step it starts with; a random trunk is named wherever it is shown."""
    options = ("loss.perceptual_weight=0.5", "perceptual.trunk=random", "train.log_every=1", "data.crop_size=16")
    _, folder = run("run", *ADVERSARIAL, *options, "train.steps=3")
    names = [set(line["loss"]) for line in logged(folder, "train")]
    plain = {"total", "l1", "perceptual", "kl", "wavelet", "gaussian"}
    assert names == [plain, plain, plain | {"adversarial", "discriminator"}]
    assert "lpips_random_trunk" in logged(folder, "evaluation")[-1]
    text = capsys.readouterr().out
    assert "lpips_random_trunk 0.5" in text
    assert "adversarial (hinge, unet) 0.1" in text


@pytest.mark.slow
def test_evaluations_measure_the_images_as_sets(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the averaged weights, of the weights themselves, and of the bicubic baseline."""
    sets = ("train.evaluate_sets=[fwd,kid]", "perceptual.trunk=random", "data.holdout=0.9")
    _, folder = run("run", "train.ema_decay=0.5", *sets)
    lines = logged(folder, "evaluation")
    assert len(lines) == 3
    for line in lines:
        assert line["fwd"] > 0
        assert isinstance(line["kid-random-weights"], float)
    assert lines[-1]["fwd"] != lines[-1]["raw"]["fwd"]
    output, warnings = capsys.readouterr()
    assert f"fwd: {lines[-1]['fwd']:.4g} (8x down, bicubic up: " in output
    assert warnings.count("images are too few for Gaussians of 12 numbers") == 1


def test_sets_whose_network_has_no_weights_end_before_training(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    code, folder = run("run", "train.evaluate_sets=[rfid]")
    assert code == 2
    message = capsys.readouterr().err
    assert "rfid needs weights-inception-2015-12-05-6726825d.pth" in message
    assert "--weights" not in message
    assert not list((folder / "checkpoints").glob("*.pt"))


def test_second_stage_starts_from_a_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Table 5's 128-tuned: the weights of another run, its discriminator's too, and a fresh Adam."""
    _, first = run("first", *ADVERSARIAL)
    options = (*ADVERSARIAL, f"train.start_from={first}", "train.steps=1", "data.crop_size=32")
    code, second = run("second", *options)
    assert code == 0
    assert f"weights   {first} at step 6, its discriminator too" in capsys.readouterr().out
    before, after = checkpoint(first, 6), checkpoint(second, 0)
    for part in ("model", "ema", "discriminator"):
        assert_same_state(before[part], after[part])
    assert after["optimizers"][0]["state"] == {}
    code, third = run("third", f"train.start_from={first / 'model'}", "train.steps=1")
    assert code == 0
    assert_same_state(checkpoint(third, 0)["model"], before["ema"])


def test_baseline_trains_under_the_same_recipe(run: Run) -> None:
    from litevae.loading import load_model

    baseline = ("model.kind=sd-vae", "model.extraction_channels=null", "model.extraction_multipliers=null")
    more = ("model.aggregation_channels=null", "model.aggregation_multipliers=null")
    code, folder = run("run", *baseline, *more, "train.steps=2")
    assert code == 0
    state = checkpoint(folder, 2)["model"]
    assert_same_state({name: value.clone() for name, value in load_model(folder).state_dict().items()}, state)


@pytest.mark.parametrize("option", ["train.gradient_checkpointing=true", "train.accumulation=2"])
def test_memory_savers_change_nothing(run: Run, option: str) -> None:
    _, plain = run("plain", "train.steps=2")
    _, saving = run("saving", "train.steps=2", option)
    _, start = run("start", "train.steps=1", "train.learning_rate=1e-30")
    assert_same_training(checkpoint(saving, 2), checkpoint(plain, 2), checkpoint(start, 1))


def test_dry_run_says_everything_and_writes_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.iterdir())
    assert train.main([str(recipe), f"run.dir={tmp_path / 'run'}", *ADVERSARIAL, "--dry-run"]) == 0
    text = capsys.readouterr().out
    for part in ("crop_size: 16", "encoder ", "decoder ", "discriminator ", "memory of a step with 2 crops at once"):
        assert part in text
    assert "images to train on: 4 images; a batch of 2x3x16x16 was read" in text
    assert "held out: 1 (32x32)" in text
    assert set(tmp_path.iterdir()) == before
    assert train.main([str(recipe), "data.path=/nowhere", "--dry-run"]) == 2


def test_tensorboard_has_the_numbers(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, folder = run("run")
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    line = logged(folder, "train")[-1]
    assert events.Scalars("loss/l1")[-1].step == line["step"]
    assert events.Scalars("loss/l1")[-1].value == pytest.approx(line["loss"]["l1"])
    assert events.Scalars("latents/std")[-1].value == pytest.approx(logged(folder, "latents")[-1]["std"])
    assert events.Scalars("held-out/psnr")[-1].value == pytest.approx(logged(folder, "evaluation")[-1]["psnr"])
    assert any(tag.endswith("/reconstruction") for tag in events.Tags()["images"])
