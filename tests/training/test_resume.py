"""Does a stopped run go on as if nothing had been, and is nothing ever written over?"""

import fcntl
import functools
import os
import re
import shutil
import signal
import struct
import sys
import tarfile
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae import load_model, train
from litevae.losses.total import AutoencoderLoss
from litevae.runs import loop
from litevae.runs.stopping import StopRequest
from litevae.training.trainer import Trainer

from .. import children
from .runs import ADVERSARIAL, assert_same_state, checkpoint, logged

Run = Callable[..., tuple[int, Path]]


RATIO = "train.gradient_ratio_every=2"


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int, *numbers: int) -> None:
    """Send these signals while step `steps` computes its loss."""
    forward, count = AutoencoderLoss.forward, iter(range(1, 1000))

    def interrupted(*args: Any, **options: Any) -> Any:
        if next(count) == steps:
            for number in numbers:
                os.kill(os.getpid(), number)
        return forward(*args, **options)

    monkeypatch.setattr(AutoencoderLoss, "forward", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra", [[], ["model.dropout=0.2", "data.workers=1"], [*ADVERSARIAL, "loss.ldl_weight=0.1", RATIO]]
)
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
        assert ("gradient_ratio" in line) == (RATIO in extra and line["step"] > 2)
        assert set(line.get("gradient_ratio", ())) <= {"adversarial"}
        assert not any("ratio" in name for name in line["loss"])
    for kind in ("evaluation", "latents"):
        assert logged(unbroken, kind)[-1] == logged(broken, kind)[-1]


def test_results_that_were_cut_short_are_written_after_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though those of an earlier end are there; once they are written, there is nothing to do."""
    _, unbroken = run("unbroken", "train.steps=4")
    _, broken = run("broken", "train.steps=2")

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "write_results", killed)
        assert train.main(["--resume", str(broken), "train.steps=4"]) == 130
    assert train.main(["--resume", str(broken)]) == 0
    expected, model = (load_model(folder) for folder in (unbroken, broken))
    assert_same_state(expected.state_dict(), model.state_dict())
    assert expected.architecture == model.architecture  # type: ignore[union-attr]
    assert train.main(["--resume", str(broken)]) == 2


def test_stream_goes_on_where_it_stopped(run: Run, photos: Path, tmp_path: Path) -> None:
    """Its position is in the checkpoint: neither from the beginning again, nor past images not seen yet."""
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as tar:
            for photo in sorted(photos.iterdir()):
                tar.add(photo, f"{shard}-{photo.name}")
    stream = ("data.source=webdataset", f"data.path={tmp_path / 'shards'}", "data.streaming=true")
    options = (*stream, "data.shuffle_block=2", "data.evaluation_images=1", "train.log_every=1")
    _, unbroken = run("unbroken", *options)
    _, broken = run("broken", "train.steps=3", *options)
    assert train.main(["--resume", str(broken), "train.steps=6"]) == 0
    states = [checkpoint(folder, 6) for folder in (unbroken, broken)]
    assert states[0].pop("data") == states[1].pop("data")
    assert_same_state(*states)
    assert logged(unbroken, "train") == logged(broken, "train")
    assert logged(unbroken, "latents") == logged(broken, "latents")[1:]


@pytest.mark.parametrize("source", ["folder", "stream"])
def test_run_of_an_older_version_keeps_its_split(run: Run, photos: Path, tmp_path: Path, source: str) -> None:
    """Its config.yaml does not know the rule by which images are held out: the last ones, or a stream's first."""
    options, expected = ["data.evaluation_images=2", "data.holdout=0.4"], ["3.png", "4.png"]
    if source == "stream":
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for photo in sorted(photos.iterdir()):
                tar.add(photo, photo.name)
        options += ["data.source=webdataset", f"data.path={tmp_path / 'a.tar'}", "data.streaming=true"]
        expected = [f"{tmp_path}/a.tar/{name}" for name in ("0.png", "1.png")]
    options += ["data.holdout_rule=last", "train.tensorboard=false"]
    _, unbroken = run("unbroken", *options, "train.steps=4")
    _, broken = run("broken", *options, "train.steps=1")
    config = (broken / "config.yaml").read_text(encoding="utf-8")
    older, count = re.subn(r"  holdout_(rule|seed): \w+\n", "", config)
    assert count == 2
    (broken / "config.yaml").write_text(older, encoding="utf-8")
    assert train.main(["--resume", str(broken), "train.steps=4"]) == 0
    for folder in (unbroken, broken):
        assert list(logged(folder, "evaluation")[-1]["images"]) == expected
    assert_same_state(checkpoint(unbroken, 4), checkpoint(broken, 4))
    assert logged(unbroken, "train")[-1] == logged(broken, "train")[-1]
    assert (broken / "config.yaml").read_text(encoding="utf-8") == config.replace(" steps: 1\n", " steps: 4\n")


def test_image_that_is_held_out_instead_of_a_damaged_one_stays_so(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "some")
    (tmp_path / "some" / "3.png").write_bytes(b"")  # the one that would be held out
    options = [f"data.path={tmp_path / 'some'}", "train.tensorboard=false"]
    _, unbroken = run("unbroken", *options, "train.steps=4")
    assert "2.png is held out instead" in capsys.readouterr().err
    _, broken = run("broken", *options, "train.steps=1")
    assert train.main(["--resume", str(broken), "train.steps=4"]) == 0
    assert_same_state(checkpoint(unbroken, 4), checkpoint(broken, 4))
    assert {name for line in logged(broken, "evaluation") for name in line["images"]} == {"2.png"}
    assert logged(unbroken, "train")[-1]["skipped_images"] == 1


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(
    ("step", "number", "exit_code"), [(2, signal.SIGINT, 130), (3, signal.SIGTERM, 143), (3, signal.SIGHUP, 129)]
)
def test_interrupted_run_equals_unbroken_run(
    run: Run,
    step: int,
    number: int,
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C, a cluster's SIGTERM or a lost terminal, then --resume: the same bits and log, with a schedule."""
    options = ("train.schedule=cosine", "train.warmup_steps=3", "train.checkpoint_every=100")
    _, unbroken = run("unbroken", *options)
    with monkeypatch.context() as patch:
        interrupt_after(patch, step, number)
        code, broken = run("broken", *options)
    assert code == exit_code
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


@pytest.mark.parametrize("key", ["model", "optimizers"])
def test_checkpoint_of_another_kind_of_run_is_passed_over(
    run: Run, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """By --resume and by train.start_from."""
    _, folder = run("run", "train.steps=1")
    for path in (folder / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        del content[key]
        torch.save(content, path)
    for again in (lambda: train.main(["--resume", str(folder)]), lambda: run("next", f"train.start_from={folder}")[0]):
        assert again() == 2
        assert f"error: {folder / 'checkpoints'} holds no whole checkpoint" in capsys.readouterr().err


def test_finished_run_needs_more_steps(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = run("run")
    assert train.main(["--resume", str(folder)]) == 2
    assert "has already run 6 steps; to go on, give more: train.steps=12" in capsys.readouterr().err


def test_run_killed_before_its_first_checkpoint_starts_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder holds a config and nothing that could be lost; with another config it is refused."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", lambda *_: None)
        patch.setattr(loop.Loop, "fit", lambda _: 0)
        run("run")
    assert run("run", "train.seed=1")[0] == 2
    assert run("run")[0] == 0


def test_a_run_is_never_written_over(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = run("run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _ = run("run", "train.seed=1")
    assert code == 2
    message = capsys.readouterr().err
    assert f"--resume {folder}" in message
    assert f"run.dir={folder}-2" in message
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("default_signals")
def test_sigterm_twice_is_heard_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cluster sends it that signals a launcher and its processes."""
    interrupt_after(monkeypatch, 3, signal.SIGTERM, signal.SIGTERM)
    code, folder = run("run", "train.checkpoint_every=100")
    assert (code, checkpoint(folder, 3)["step"]) == (143, 3)


def test_resumed_run_takes_the_optimizer_s_new_numbers(run: Run) -> None:
    _, folder = run("run", *ADVERSARIAL)
    options = ("train.steps=7", "train.betas=[0.8,0.95]", "train.learning_rate=0.002")
    assert train.main(["--resume", str(folder), *options, "discriminator.betas=[0.1,0.2]"]) == 0
    groups = [state["param_groups"][0] for state in checkpoint(folder, 7)["optimizers"]]
    assert [(group["betas"], group["lr"]) for group in groups] == [((0.8, 0.95), 0.002), ((0.1, 0.2), 0.002)]


def test_run_whose_terminal_closes_is_saved(recipe: Path, tmp_path: Path) -> None:
    """As when a connection is lost: SIGHUP, and nowhere to write to any more."""
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 200, 0, 0))  # room for the progress bar
    options = ["train.steps=1000", "train.checkpoint_every=1000", "train.evaluate_every=1000", "data.workers=1"]
    command = [sys.executable, "-m", "litevae.train", str(recipe), f"run.dir={tmp_path / 'run'}", *options]
    in_terminal = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    streams = {"stdin": end, "stdout": end, "stderr": end}
    with children.started([sys.executable, "-c", in_terminal, *command], **streams) as process:
        os.close(end)
        text = b""
        while not re.search(rb"step [1-9]\d*/1000", text):
            text += os.read(terminal, 4096)
        os.close(terminal)
        assert process.wait(timeout=60) == 128 + signal.SIGHUP
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert newest.name > "step-000000.pt"


@pytest.mark.usefixtures("default_signals")
def test_second_ctrl_c_acts_at_once() -> None:
    """Whatever came first: a save that hangs must not need kill -9."""
    for first in (signal.SIGINT, signal.SIGTERM):
        with StopRequest() as stop:
            os.kill(os.getpid(), first)
            assert stop.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)


def test_signal_that_nohup_ignores_stays_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_moments_in_another_memory_layout_mean_the_same(run: Run) -> None:
    """Fused Adam on a CPU goes through memory as it lies: a checkpoint from elsewhere must not scramble its moments."""
    _, first = run("first", "train.steps=3")
    _, second = run("second", "train.steps=3")
    content = checkpoint(second, 3)
    for state in content["optimizers"][0]["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            if state[name].dim() == 4:
                is_last = state[name].is_contiguous(memory_format=torch.channels_last)
                other = torch.contiguous_format if is_last else torch.channels_last
                state[name] = state[name].clone(memory_format=other)
    torch.save(content, second / "checkpoints" / "step-000003.pt")
    for folder in (first, second):
        assert train.main(["--resume", str(folder), "train.steps=6"]) == 0
    assert_same_state(checkpoint(first, 6), checkpoint(second, 6))


def test_scale_of_a_float16_loss_is_resumed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first scale makes the first steps overflow; a resumed run does not go through that again."""
    monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(torch.amp.GradScaler, init_scale=2.0**40))
    options = ("train.mixed_precision=fp16", "train.max_skipped_steps=100")
    _, unbroken = run("unbroken", *options)
    _, broken = run("broken", "train.steps=3", *options)
    assert checkpoint(broken, 3)["scalers"][0]["scale"] == 2.0**37
    assert train.main(["--resume", str(broken), "train.steps=6"]) == 0
    assert_same_state(checkpoint(unbroken, 6), checkpoint(broken, 6))
