"""Does `python -m litevae.export` write files, say what they are, and name what is wrong with a request?"""

import json
import sys
from pathlib import Path

import pytest
import torch

from litevae import LiteVAE
from litevae.export import main

from .children import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model without an encoder's network and with a narrow decoder."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("saved")
    LiteVAE.from_preset("S", encoder_type="dwt", latent_channels=12, block_out_channels=(8,) * 4).save_pretrained(path)
    return path


@pytest.mark.slow
def test_files_and_what_is_said_of_them(folder: Path, tmp_path: Path) -> None:
    """As a program; a second time it needs --overwrite."""
    command = [sys.executable, "-m", "litevae.export", str(folder), "--to", "pt2", "--output", str(tmp_path / "new")]
    done = run(command, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    encoder, decoder, about = done.stdout.splitlines()
    assert "encoder.pt2" in encoder
    assert "largest relative error" in decoder
    assert "without litevae, at 2x12x8x12 and 1x12x12x6" in decoder
    assert about == "encoder.pt2.json says how to use encoder.pt2 without litevae"
    names = {"encoder.pt2", "encoder.pt2.json", "decoder.pt2", "decoder.pt2.json"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert json.loads((tmp_path / "new" / "encoder.pt2.json").read_text())["latent_channels"] == 12
    again = run(command, timeout=600)
    assert again.returncode == 2
    assert again.stderr.endswith("encoder.pt2 exists; choose another --output or add --overwrite\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "tensorrt"], "argument --to: invalid choice: 'tensorrt'"),
        (["--to", "pt2", "--static", "64"], "argument --static: must be HxW or BxHxW in pixels"),
        (["--to", "pt2", "--static", "0x64"], "argument --static: must be HxW or BxHxW"),
        (["--to", "pt2", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
    ],
)
def test_a_mistyped_request(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(folder), "--output", str(tmp_path), *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("", ["--to", "pt2", "--static", "60x64"], "error: static must have a height and a width that are"),
        ("", ["--to", "onnx", "--dtype", "bfloat16"], "error: dtype must be float32 or float16 for ONNX"),
        ("nothing", ["--to", "pt2"], "nothing must be a run's folder"),
    ],
)
def test_a_wrong_request(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, words: list[str], message: str
) -> None:
    assert main([str(folder / model), "--output", str(tmp_path / "new"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_another_autoencoder_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from diffusers import AutoencoderTiny

    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(tmp_path)
    assert main([str(tmp_path), "--to", "pt2", "--output", str(tmp_path / "new")]) == 2
    assert "error: model must be a LiteVAE or a StableDiffusionVAE, got 'AutoencoderTiny'" in capsys.readouterr().err


def test_a_disk_that_is_full_is_a_failure(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(sys.modules["litevae.exporting.writers"].WRITERS, "pt2", (".pt2", full))
    words = ["--part", "encoder", "--static", "16x16"]
    assert main([str(folder), "--to", "pt2", "--output", str(tmp_path / "new"), *words]) == 1
    assert "error: [Errno 28] No space left on device\n" in capsys.readouterr().err
    assert list((tmp_path / "new").iterdir()) == []
