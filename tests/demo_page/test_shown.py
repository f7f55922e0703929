"""Are the demo's numbers right, large photos shrunk, and its errors readable? Without gradio."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from litevae import LiteVAE, StableDiffusionVAE, demo
from litevae.demo_page.shown import DemoError, about, count_bytes, show


@pytest.fixture(scope="module")
def model() -> LiteVAE:
    torch.manual_seed(0)
    return LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8), layers_per_block=1).eval()


def photo(folder: Path, width: int, height: int, name: str = "photo.png") -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_the_numbers(model: LiteVAE, tmp_path: Path) -> None:
    path = photo(tmp_path, 50, 36)  # sides that 8 does not divide
    shown = show(model, path, max_side=64)
    pixels = np.array(Image.open(path))
    assert np.array_equal(np.asarray(shown.original), pixels)
    original = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    padded = torch.nn.functional.pad(original, (0, 6, 0, 4), mode="replicate")
    with torch.no_grad():
        expected = model(padded).sample[:, :, :36, :50].clamp(-1, 1)
    assert shown.psnr == pytest.approx(
        peak_signal_noise_ratio(original.numpy(), expected.numpy(), data_range=2.0), abs=1e-3
    )
    rounded = ((expected[0].permute(1, 2, 0).numpy() + 1) * 127.5).round()
    assert np.abs(np.asarray(shown.reconstruction) - rounded).max() <= 1
    assert (shown.latent_shape, shown.latent_bytes) == ((4, 5, 7), 4 * 5 * 7 * 2)
    assert shown.file_bytes == path.stat().st_size
    assert (shown.reconstruction.size, shown.latent.size) == ((50, 36), (50, 36))
    squares = np.asarray(shown.latent)
    assert np.array_equal(squares[:32, :48:8].repeat(8, axis=1), squares[:32, :48])
    assert not shown.was_shrunk
    values = {what: (value, more) for what, value, more in shown.facts()}
    assert values["PSNR"][0] == f"{shown.psnr:.2f} dB"
    assert values["Latent in float16"] == ("280 bytes", "4 x 5 x 7, 5.2% of the pixels' bytes")
    assert values["Pixels at 8 bits"] == ("5.4 kB", "50 x 36")
    assert values["Photo's file"][1] == f"{path.stat().st_size / 280:.1f} times the latent"


def test_a_file_that_is_smaller_than_its_latent(model: LiteVAE, tmp_path: Path) -> None:
    Image.new("RGB", (256, 256), "gray").save(tmp_path / "gray.png")
    facts = {what: more for what, _, more in show(model, tmp_path / "gray.png", 256).facts()}
    assert facts["Photo's file"].endswith(" of the latent")
    assert facts["Photo's file"].startswith("0.")


@pytest.mark.parametrize(("size", "shrunk"), [((90, 60), (48, 32)), ((20, 100), (10, 48)), ((48, 48), (48, 48))])
def test_large_photos_are_shrunk_and_that_is_said(
    model: LiteVAE, tmp_path: Path, size: tuple[int, int], shrunk: tuple[int, int]
) -> None:
    shown = show(model, photo(tmp_path, *size), max_side=48)
    assert (shown.original.size, shown.reconstruction.size, shown.whole_size) == (shrunk, shrunk, size)
    assert shown.was_shrunk == (size != shrunk)
    said = any(f"{size[0]} x {size[1]} pixels, which were shrunk" in more for _, _, more in shown.facts())
    assert said == shown.was_shrunk


def test_errors_are_a_sentence_with_the_photo_s_name(model: LiteVAE, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(DemoError, match=r"^cannot read the image text\.jpg: not an image in a format that Pillow"):
        show(model, tmp_path / "text.jpg", 64)
    with pytest.raises(DemoError, match=r"^no such image: none\.jpg$"):
        show(model, tmp_path / "none.jpg", 64)

    def too_large(*_: object, **__: object) -> None:
        torch.empty(2**50)  # more than a machine can address

    monkeypatch.setattr(LiteVAE, "forward", too_large)
    with pytest.raises(DemoError, match=r"^32 x 16 pixels need more memory than there is; drop a smaller photo$"):
        show(model, photo(tmp_path, 32, 16), 64)


def test_the_baseline_and_half_precision(model: LiteVAE, tmp_path: Path) -> None:
    baseline = StableDiffusionVAE.from_architecture(block_out_channels=(8, 8, 8, 8), layers_per_block=1).eval()
    for one in (baseline, LiteVAE.from_config(model.config).eval().bfloat16()):
        shown = show(one, photo(tmp_path, 32, 24), 64)
        assert shown.latent_shape == (4, 3, 4)
        assert np.isfinite(shown.psnr)
    assert about(model).startswith("LiteVAE: encoder 1.04 M parameters, decoder 0.0")
    assert "4 channels at 1/8 of the size; cpu" in about(baseline)


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (17_328, "17.3 kB"), (2_345_678, "2.35 MB")],
)
def test_bytes(count: int, text: str) -> None:
    assert count_bytes(count) == text


def test_wrong_requests(model: LiteVAE, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("model")
    monkeypatch.setattr(demo, "serve", lambda *_: pytest.fail("it served before it checked"))
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.main(["--model", "model"]) == 2
    assert capsys.readouterr().err == (
        "error: the demo needs gradio, which is not installed; pip install 'litevae[demo]'\n"
    )
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: name)
    assert demo.main(["--model", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere must be a run's folder")
    for arguments, message in (
        (["--port", "0"], "--port: must be a whole number from 1 to 65535, got 0"),
        (["--port", "http"], "--port: must be a whole number from 1 to 65535, got http"),
        (["--max-side", "8"], "--max-side: must be a whole number, at least 16, got 8"),
        (["--share", "yes"], "--share: invalid choice: 'yes'"),
    ):
        with pytest.raises(SystemExit, match="2"):
            demo.main(["--model", "model", *arguments])
        assert message in capsys.readouterr().err
