"""Does `python -m litevae.reconstruct` take any photo, print the right PSNR, and write over nothing?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from litevae import LiteVAE, reconstruct
from litevae.data import read_image, srgb_profile, to_tensor
from litevae.evaluation.metrics import psnr

from ..data.icc import rgb_profile

NARROW: dict[str, Any] = {
    "extraction_channels": 8,
    "extraction_multipliers": (1,),
    "aggregation_channels": 8,
    "aggregation_multipliers": (1,),
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "model"
    LiteVAE(**NARROW).save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photo(folder: Path, width: int, height: int, name: str = "photo.png", mode: str = "RGB") -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(folder / name)
    return str(folder / name)


@pytest.mark.parametrize(("width", "height"), [(48, 32), (37, 21), (1, 1), (3, 70)])
def test_any_size(here: Path, model_folder: Path, width: int, height: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = photo(here, width, height)
    assert reconstruct.main([path, "--model", str(model_folder)]) == 0
    original = to_tensor(read_image(path))
    padded = np.pad(original.numpy(), ((0, 0), (0, -height % 8), (0, -width % 8)), mode="edge")
    with torch.no_grad():
        output = LiteVAE.from_pretrained(model_folder).eval()(torch.from_numpy(padded)[None]).sample
    expected = psnr(output[:, :, :height, :width].clamp(-1, 1), original[None]).item()
    assert f"PSNR {expected:.2f} dB, {width}x{height} pixels" in capsys.readouterr().out
    assert Image.open(here / "photo-reconstruction.png").height > height


@pytest.mark.parametrize(("levels", "places"), [((1, 2), "4x6x10"), ((1, 2, 3, 4), "4x2x3")])
def test_latents_of_other_resolutions(
    here: Path, capsys: pytest.CaptureFixture[str], levels: tuple[int, ...], places: str
) -> None:
    sizes = {"wavelet_levels": levels, "block_out_channels": (8,) * (levels[-1] + 1)}
    LiteVAE(**{**NARROW, **sizes}).save_pretrained(here / "model")
    assert reconstruct.main([photo(here, 37, 21), "--model", "model"]) == 0
    assert f"37x21 pixels, latent {places}" in capsys.readouterr().out


def test_grayscale_and_run_folder(here: Path, model_folder: Path) -> None:
    assert reconstruct.main([photo(here, 20, 20, mode="L"), "--model", str(model_folder.parent)]) == 0


def test_colours_are_srgb_from_the_photo_to_the_figure(
    here: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a photo in Adobe RGB, with and without a profile that says so; a broken one is named."""
    image = Image.new("RGB", (64, 64), (60, 200, 60))
    for name, profile, colour in (("adobe", rgb_profile(), (0, 201, 37)), ("noise", b"noise", (60, 200, 60))):
        image.save(here / f"{name}.png", icc_profile=profile)
        for output in ("png", "jpg"):
            arguments = [f"{name}.png", "--model", str(model_folder), "--output", f"{name}-out.{output}"]
            assert reconstruct.main(arguments) == 0
            figure = Image.open(here / f"{name}-out.{output}")
            assert figure.info["icc_profile"] == srgb_profile()
            assert output != "png" or figure.getpixel((10, 28)) == colour
        assert ("warning: ignored (ICC profile) noise.png: " in capsys.readouterr().err) == (name == "noise")


def test_nothing_is_written_over(here: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [photo(here, 16, 16), "--model", str(model_folder)]
    for name in ("photo-reconstruction.png", "photo-reconstruction-2.png", "photo-reconstruction-3.png"):
        assert not (here / name).exists()
        assert reconstruct.main(arguments) == 0
        assert (here / name).exists()
    (here / "mine.png").write_text("mine")
    assert reconstruct.main([*arguments, "--output", "mine.png"]) == 2
    assert "mine.png exists; choose another --output or add --overwrite" in capsys.readouterr().err
    assert (here / "mine.png").read_text() == "mine"
    assert reconstruct.main([*arguments, "--output", "mine.png", "--overwrite"]) == 0
    assert Image.open(here / "mine.png").format == "PNG"


@pytest.mark.slow
def test_interrupted_run_uses_its_checkpoint(
    here: Path, run: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = run("run")
    for file in (folder / "model").iterdir():
        file.unlink()
    (folder / "model").rmdir()
    assert reconstruct.main([photo(here, 16, 16), "--model", str(folder)]) == 0
    assert "is not finished: using its checkpoint of step 6" in capsys.readouterr().err


def test_large_photo_is_warned_about_and_shrunk_on_request(
    here: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reconstruct, "LARGE_PIXELS", 1000)
    arguments = [photo(here, 60, 40), "--model", str(model_folder)]
    assert reconstruct.main(arguments) == 0
    assert "warning: 60x40 pixels need much memory" in capsys.readouterr().err
    assert reconstruct.main([*arguments, "--blend"]) == 0
    assert not capsys.readouterr().err
    assert reconstruct.main([*arguments, "--max-side", "30"]) == 0
    captured = capsys.readouterr()
    assert "30x20 pixels" in captured.out
    assert not captured.err


def test_large_photo_of_a_model_that_streams(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bounded = {"decoder_normalization": "smc", "mid_block_add_attention": False}
    LiteVAE(**NARROW, **bounded).save_pretrained(here / "model")
    arguments = [photo(here, 61, 45), "--model", "model"]
    assert reconstruct.main(arguments) == 0
    whole = capsys.readouterr()
    assert not whole.err
    monkeypatch.setattr(reconstruct, "LARGE_PIXELS", 1000)
    assert reconstruct.main(arguments) == 0
    streamed = capsys.readouterr()
    assert "decoding 100%" in streamed.err
    assert "warning" not in streamed.err
    assert streamed.out == whole.out.replace("photo-reconstruction.png", "photo-reconstruction-2.png")


def test_errors_are_one_line_and_name_the_thing(
    here: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, model = photo(here, 16, 16), str(model_folder)
    (here / "text.jpg").write_text("text")
    long = photo(here, 16, 16, name=f"{'n' * 240}.png")  # the default output would be too long
    (here / "empty").mkdir()
    (here / "dangling.png").symlink_to(here / "gone.png")
    (here / "cut").mkdir()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (here / "cut" / name).write_bytes((model_folder / name).read_bytes()[:5000])
    cases = {
        ("nothing.jpg", "--model", model): "no such image: nothing.jpg",
        ("text.jpg", "--model", model): "cannot read the image text.jpg",
        (good, "--model", "nowhere"): "nowhere must be a run's folder, a folder written by save_pretrained, or owner/",
        (good, "--model", "./nowhere"): "Hugging Face Hub, got nothing of that name",
        (good, "--model", "empty"): "got a folder with neither config.json nor config.yaml (it is empty)",
        (good, "--model", "cut"): "cut",
        (good, "--model", model, "--output", "no/folder/a.png"): "--output must lie in a folder that exists",
        (
            good,
            "--model",
            model,
            "--output",
            "out",
        ): "--output must end in .png or .jpg or .jpeg or .tif or .tiff, got out; try out.png",
        (good, "--model", model, "--output", "dangling.png"): "dangling.png exists; choose another --output",
        (
            good,
            "--model",
            model,
            "--output",
            "out.bmp",
        ): "--output must end in .png or .jpg or .jpeg or .tif or .tiff, got out.bmp",
        (good, "--model", model, "--output", "empty"): "--output must name a file, got the folder empty",
        (good, "--model", model, "--output", "/proc/out.png"): "--output must be writable",
        (good, "--model", model, "--output", ".png"): "--output must have a name before its ending, got .png; try",
        (long, "--model", model): "-reconstruction.png (File name too long); name a place",
    }
    monkeypatch.setattr(reconstruct, "_write", lambda *_: pytest.fail("it worked before it checked"))
    for argv, message in cases.items():
        assert reconstruct.main(argv) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1


def test_a_picture_that_its_format_cannot_hold_is_refused_before_the_work(
    here: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A .jpg has at most 65500 pixels a side; a link's target has the ending that counts."""
    arguments = [photo(here, 21900, 1), "--model", str(model_folder), "--output"]
    (here / "link.png").symlink_to(here / "data.bin")
    with monkeypatch.context() as patched:
        patched.setattr(reconstruct, "_write", lambda *_: pytest.fail("it worked before it checked"))
        assert reconstruct.main([*arguments, "a.jpg"]) == 2
        assert "65796 pixels: a .jpg has at most 65500; try a.png\n" in capsys.readouterr().err
        assert reconstruct.main([*arguments, "link.png", "--overwrite"]) == 2
        assert "--output must lead to a .png or" in capsys.readouterr().err
    assert reconstruct.main([*arguments, "a.jpg", "--max-side", "100"]) == 0


def too_large(*_: object) -> None:
    torch.empty(2**50)  # more than a machine can address


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("write", "code", "said"),
    [
        (too_large, 1, "error: the photo is too large for this machine's memory; try --max-side 1024\n"),
        (interrupted, 130, "interrupted\n"),
    ],
)
def test_too_little_memory_and_ctrl_c_are_one_line(
    here: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write: Callable[..., None],
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(reconstruct, "_write", write)
    assert reconstruct.main([photo(here, 16, 16), "--model", str(model_folder)]) == code
    assert capsys.readouterr().err == said
    assert [file.name for file in here.iterdir()] == ["photo.png"]


@pytest.mark.parametrize("side", ["0", "-1", "1.5", "many"])
def test_a_side_that_is_no_number_of_pixels(here: Path, side: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        reconstruct.main(["photo.png", "--model", "model", "--max-side", side])
    assert f"--max-side: must be a whole number, at least 1, got {side}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("A.JPEG", "JPEG"), ("a.tif", "TIFF")])
def test_the_ending_says_the_format(here: Path, model_folder: Path, name: str, kind: str) -> None:
    assert reconstruct.main([photo(here, 16, 16), "--model", str(model_folder), "--output", name]) == 0
    assert Image.open(here / name).format == kind


def test_a_disk_that_fills_up_leaves_the_older_picture(
    here: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.png").write_text("mine")

    def full(image: Image.Image, path: Path, **_: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    path = here / "photo.ppm"
    path.write_bytes(b"P6 16 16 255 " + bytes(768))
    assert reconstruct.main([str(path), "--model", str(model_folder), "--output", "mine.png", "--overwrite"]) == 1
    assert capsys.readouterr().err == "error: mine.png cannot be written: No space left on device\n"
    assert (here / "mine.png").read_text() == "mine"
