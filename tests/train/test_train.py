"""Does the program train, stop, resume and refuse as it says?"""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae import LiteVAE, train
from litevae.losses.total import AutoencoderLoss

Run = Callable[..., tuple[int, Path]]


def checkpoint(folder: Path, step: int) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"step-{step:06d}.pt", weights_only=True)


def logged(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Lines of one kind, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key != "images_per_second"}
        for line in lines
        if line["kind"] == kind
    ]


def assert_same_state(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Bit for bit: parameters, Adam's moments, sums of the losses."""
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send Ctrl-C while step `steps` computes its loss."""
    forward, count = AutoencoderLoss.forward, iter(range(1, 1000))

    def interrupted(*args: Any) -> Any:
        if next(count) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(*args)

    monkeypatch.setattr(AutoencoderLoss, "forward", interrupted)


def test_run_learns_and_leaves_everything(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = run("run", "train.steps=40", "train.learning_rate=0.01", "train.log_every=1", "data.crop_size=32")
    assert code == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("config.yaml", "versions.json", "metrics.jsonl", "loss_and_psnr.png", "reconstructions.png"),
        *("checkpoints", "model"),
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


def test_same_seed_same_run_other_seed_other_run(run: Run) -> None:
    states = [
        checkpoint(run(name, f"train.seed={seed}")[1], 6)["model"] for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    ]
    assert_same_state(states[0], states[1])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize("extra", [[], ["model.dropout=0.2", "data.workers=1"]])
def test_longer_run_equals_resumed_run(run: Run, extra: list[str]) -> None:
    """k steps, then --resume to N: the same bits as N steps at once (constant learning rate)."""
    _, unbroken = run("unbroken", *extra)
    code, broken = run("broken", "train.steps=3", *extra)  # 3 is in the middle of a log window of 2
    assert code == 0
    assert train.main(["--resume", str(broken), "train.steps=6"]) == 0
    assert_same_state(checkpoint(unbroken, 6), checkpoint(broken, 6))
    resumed = {line["step"]: line for line in logged(broken, "train")}
    for line in logged(unbroken, "train"):
        assert resumed[line["step"]] == line
    assert logged(unbroken, "evaluation")[-1] == logged(broken, "evaluation")[-1]


@pytest.mark.parametrize("step", [2, 3])
def test_interrupted_run_equals_unbroken_run(
    run: Run, step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C, then --resume: the same bits and the same log, here with a schedule and a checkpoint per run."""
    options = ("train.schedule=cosine", "train.warmup_steps=3", "train.checkpoint_every=100")
    _, unbroken = run("unbroken", *options)
    with monkeypatch.context() as patch:
        interrupt_after(patch, step)
        code, broken = run("broken", *options)
    assert code == 130
    assert f"python -m litevae.train --resume {broken}" in capsys.readouterr().out
    assert checkpoint(broken, step)["step"] == step
    assert not (broken / "model").exists()
    assert train.main(["--resume", str(broken)]) == 0
    assert_same_state(checkpoint(unbroken, 6), checkpoint(broken, 6))
    assert logged(unbroken, "train") == logged(broken, "train")
    assert logged(unbroken, "evaluation") == logged(broken, "evaluation")


def test_resume_from_an_older_checkpoint_forgets_what_was_logged_later(run: Run) -> None:
    """As after a crash between two checkpoints: the log holds every step once."""
    _, folder = run("run")
    before = logged(folder, "train")
    (folder / "checkpoints" / "step-000006.pt").unlink()
    assert train.main(["--resume", str(folder)]) == 0
    assert logged(folder, "train") == before
    assert [line["step"] for line in logged(folder, "evaluation")] == [0, 4, 6]


def test_run_killed_before_its_first_step_can_be_resumed(run: Run) -> None:
    _, folder = run("run")
    for step in (4, 6):
        (folder / "checkpoints" / f"step-{step:06d}.pt").unlink()
    _, fresh = run("fresh", "train.keep_checkpoints=10")
    (fresh / "checkpoints" / "step-000000.pt").rename(folder / "checkpoints" / "step-000000.pt")
    (folder / "metrics.jsonl").unlink()
    assert train.main(["--resume", str(folder)]) == 0
    assert logged(folder, "evaluation") == logged(fresh, "evaluation")
    assert_same_state(checkpoint(folder, 6), checkpoint(fresh, 6))


def test_damaged_newest_checkpoint_is_named_and_passed_over(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = run("run")
    newest = folder / "checkpoints" / "step-000006.pt"
    whole = checkpoint(folder, 6)
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert train.main(["--resume", str(folder)]) == 0
    assert f"warning: damaged checkpoint {newest} is passed over" in capsys.readouterr().err
    assert_same_state(checkpoint(folder, 6), whole)


def test_finished_run_needs_more_steps(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = run("run")
    assert train.main(["--resume", str(folder)]) == 2
    assert "has already run 6 steps; to go on, give more: train.steps=12" in capsys.readouterr().err


def test_a_run_is_never_written_over(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = run("run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _ = run("run", "train.seed=1")
    assert code == 2
    message = capsys.readouterr().err
    assert f"--resume {folder}" in message
    assert f"run.dir={folder}-2" in message
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_non_finite_loss_names_the_term_and_keeps_the_last_good_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from litevae.losses import total

    blur, count = total.gaussian_high_pass_loss, iter(range(1, 1000))
    monkeypatch.setattr(
        total, "gaussian_high_pass_loss", lambda *a, **k: blur(*a, **k) * (float("nan") if next(count) == 3 else 1)
    )
    code, folder = run("run")
    assert code == 1
    message = capsys.readouterr().err
    assert "error: loss term gaussian is not finite at step 3; the last good checkpoint is kept" in message
    assert f"--resume {folder} train.learning_rate=0.0005" in message
    assert checkpoint(folder, 2)["step"] == 2
    assert not (folder / "checkpoints" / "step-000004.pt").exists()
    assert train.main(["--resume", str(folder)]) == 0


def test_model_that_is_lost_is_never_saved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinite gradient behind a finite loss, between two log lines: the save looks at the parameters."""
    step, count = torch.optim.Adam.step, iter(range(1, 1000))

    def overflowing(optimizer: torch.optim.Adam) -> None:
        step(optimizer)
        if next(count) == 4:
            optimizer.param_groups[0]["params"][0].data.fill_(float("inf"))

    monkeypatch.setattr(torch.optim.Adam, "step", overflowing)
    code, folder = run("run", "train.log_every=100")
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


def test_step_trains_with_gradients_even_under_a_callers_no_grad(run: Run) -> None:
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
    assert {entry["exp_avg"].dtype for entry in state["optimizer"]["state"].values()} == {torch.float32}
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
    code, _ = run("run", f"data.path={folder}")
    assert code == 0
    assert f"warning: skipped: cannot read the image {folder / '1.png'}" in capsys.readouterr().err
