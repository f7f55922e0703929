"""Is everything wrong with a command answered in one line that names it and the nearest valid choice?"""

from pathlib import Path

import pytest

from litevae import train
from litevae.runs.recipes import recipes


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert train.main(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["quikstart"], "unknown recipe 'quikstart'; did you mean quickstart?"),
        (["banana"], "unknown recipe 'banana' (recipes: comparison, distill-quickstart, distill, dit, ffhq128"),
        (["quickstart", "model.sze=B"], "model.sze=B: unknown key model.sze; did you mean model.size?"),
        (["quickstart", "train.lr=1"], "unknown key train.lr"),
        (["quickstart", "modl.size=B"], "unknown section 'modl'; did you mean model?"),
        (["quickstart", "steps=5"], "unknown section 'steps'; did you mean train.steps?"),
        (["quickstart", "model.size=X"], "model.size must be one of 'S', 'B', 'M', 'L', got 'X'"),
        (["quickstart", "model.output_type=wave"], "model.output_type must be one of 'image', 'wavelet', got 'wave'"),
        (["quickstart", "model.block_out_channels=[8]"], "model.block_out_channels must have 4 entries"),
        (["quickstart", "train.steps=many"], "train.steps must be a whole number such as 1000, got 'many'"),
        (["quickstart", "train.steps=1.5"], "train.steps must be a whole number such as 1000, got '1.5'"),
        (["quickstart", "train.steps=0"], "train.steps must be at least 1, got 0"),
        (["quickstart", "train.betas=[0.9]"], "train.betas must be two numbers"),
        (
            ["quickstart", "train.mixed_precision=fp8"],
            "train.mixed_precision must be one of 'float32', 'bf16', 'fp16', got 'fp8'",
        ),
        (["quickstart", "data.crop_size=[1"], "data.crop_size must be a whole number such as 1000, got '[1'"),
        (["quickstart", "loss.kl_reduction=mean"], "loss.kl_reduction must be one of 'per_image_element', 'sum'"),
        (["quickstart", "train=5"], "train=5: train must be followed by a key (train.key=value)"),
        (
            ["quickstart", "model=sd-vea"],
            "did you mean model=sd-vae?",
        ),
        (["quickstart", "model=sd-vae", "model.dropout=0.1"], "model.dropout must be left out with model.kind=sd-vae"),
        (["quickstart", "model.kind=sd-vae"], "which has no such argument; model=sd-vae leaves out what a recipe sets"),
        (["quickstart", "loss=gaussian"], "loss=gaussian is now called loss=no-wavelet"),
        (["quickstart", "loss=baseline"], "loss=baseline is now called loss=no-high-frequency"),
        (["quickstart", "loss.ldl_weight=1"], "loss.ldl_weight needs the averaged model: set train.ema_decay"),
        (["quickstart", "train.accumulation=3"], "train.accumulation must divide train.batch_size 4, got 3"),
        (
            ["quickstart", "train.start_from=/nowhere"],
            "train.start_from must name a run or a model folder, got /nowhere",
        ),
        (["quickstart", "perceptual.kind=vgg"], "perceptual.kind must be one of 'lpips', 'vgg19', got 'vgg'"),
        (["quickstart", "discriminator.kind=gan"], "discriminator.kind must be one of 'unet', 'patchgan', 'stylegan'"),
        (["quickstart", "faster"], "an override must look like section.key=value, got 'faster'"),
        (["quickstart", "data.path=/nowhere/at/all"], "data.path must name a folder of images, got /nowhere/at/all"),
    ],
)
def test_wrong_command(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, *argv)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "- model\n- data\n",
            "of sections (model, data, loss, perceptual, discriminator, train, run), got a sequence",
        ),
        ("just words", "got a scalar on its top level"),
        ("model: [1\n", "is not valid yaml: "),
        ("train:\n  steps: 1\n  steps: 2\n", "is not valid yaml: found duplicate key steps, line 3"),
        ("train:\n  stepz: 1\n", "unknown key train.stepz; did you mean train.steps?"),
        ("train:\n  steps: ${nothing}\n", "Interpolation key 'nothing' not found"),
        (b"\xff\xfe\x00binary", "is not a text file"),
    ],
)
def test_wrong_yaml(content: str | bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    text = error_of(capsys, str(path))
    assert message in text
    assert str(path) in text


def test_missing_yaml_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos.yaml").write_text("")
    assert f"did you mean {tmp_path / 'photos.yaml'}?" in error_of(capsys, str(tmp_path / "photo.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    assert "got the folder" in error_of(capsys, str(tmp_path / "folder.yaml"))


def test_resume_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "which has no config.yaml" in error_of(capsys, "--resume", str(tmp_path))
    (tmp_path / "config.yaml").write_text("")
    assert "holds no checkpoint" in error_of(capsys, "--resume", str(tmp_path))


def test_resume_keeps_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("model:\n  size: S\n")
    message = error_of(capsys, "--resume", str(tmp_path), "model.size=B")
    assert "model.size must stay S when a run is resumed, got B" in message


def test_run_dir_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        assert f"run.dir must be a folder, got {place}, where" in error_of(capsys, "quickstart", f"run.dir={place}")
    assert "run.dir must be writable, got /proc/run (" in error_of(capsys, "quickstart", "run.dir=/proc/run")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "RECIPE [section.key=value ...]"),
        (["train.steps=5"], "the recipe comes before the overrides"),
        (["quickstart", "--resume", "runs/x"], "leave out 'quickstart'"),
        (["--resum"], "expected one argument"),
        (["--resume", "runs/x", "--dry-run"], "--dry-run is for a recipe"),
    ],
)
def test_arguments_in_the_wrong_place(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_every_recipe_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name, about in recipes().items():
        assert f"{name} " in text
        assert about in text
    assert "data.path=~/photos model.size=B" in text
