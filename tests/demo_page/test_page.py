"""Does the page work in a browser, and what is dropped on it come back as pictures and numbers?"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from litevae import LiteVAE
from litevae.demo_page.shown import show

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'litevae[demo]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model/, photo.png with a gradient that a browser shows in many colours, large.png, text.png."""
    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8), layers_per_block=1).save_pretrained(folder / "model")
    rows, columns = np.meshgrid(np.linspace(0, 255, 60), np.linspace(0, 255, 80), indexing="ij")
    pixels = np.stack([rows, columns, 255 - rows], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    Image.fromarray(pixels).resize((160, 120)).save(folder / "large.png")
    (folder / "text.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """A demo that shows photo.png and shrinks to 96 pixels, until Ctrl-C ends it with exit code 0."""
    options = ["--photo", str(place / "photo.png"), "--max-side", "96", "--title", "A test"]
    (place / "temporary").mkdir()
    own = {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(place / "temporary")}
    environment = {**os.environ, "no_proxy": "127.0.0.1", **own}
    command = [sys.executable, "-m", "litevae.demo", "--model", str(place / "model"), *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:1] == ["open"]
        yield words[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert not [path for path in (place / "temporary").rglob("*") if path.is_file()]  # of photos and results
    finally:
        process.kill()
        process.wait()


def psnr_text(place: Path, name: str) -> str:
    return f"{show(LiteVAE.from_pretrained(place / 'model'), place / name, 96).psnr:.2f} dB"


def browse(address: str, *options: str) -> str:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--window-size=1024,700"]
    done = subprocess.run([CHROMIUM, *flags, *options, address], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_browser_shows_the_photo(place: Path, address: str, tmp_path: Path) -> None:
    page = browse(address, "--dump-dom")
    assert "A test" in page
    assert psnr_text(place, "photo.png") in page
    assert "4 x 8 x 10" in page
    assert not re.findall(r"https?://(?!127\.0\.0\.1|localhost|www\.w3\.org)[\w.]+/[^\"' ]+\.(?:js|woff2?)", page)
    browse(address, f"--screenshot={tmp_path / 'page.png'}")
    screenshot = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3)
    assert len(np.unique(screenshot, axis=0)) > 1000  # the gradient


def test_what_is_dropped_comes_back(place: Path, address: str) -> None:
    """By the page's own requests: a browser without hands cannot drop a file."""
    import gradio_client

    client = gradio_client.Client(address, verbose=False)
    pair, latent, numbers = client.predict(gradio_client.handle_file(place / "photo.png"), api_name="/drop")
    original, reconstruction = (np.asarray(Image.open(_path(picture)).convert("RGB")) for picture in pair)
    assert np.array_equal(original, np.asarray(Image.open(place / "photo.png")))
    expected = show(LiteVAE.from_pretrained(place / "model"), place / "photo.png", 96)
    # Of another process, whose sums may be rounded otherwise.
    difference = np.abs(reconstruction.astype(int) - np.asarray(expected.reconstruction))
    assert difference.max() <= 1
    assert Image.open(_path(latent)).size == (80, 60)
    assert psnr_text(place, "photo.png") in numbers
    _, _, numbers = client.predict(gradio_client.handle_file(place / "large.png"), api_name="/drop")
    assert "160 x 120 pixels, which were shrunk" in numbers
    with pytest.raises(Exception, match=r"cannot read the image text\.png: not an image in a format that Pillow reads"):
        client.predict(gradio_client.handle_file(place / "text.png"), api_name="/drop")


def _path(picture: Any) -> str:
    return str(picture["path"] if isinstance(picture, dict) else picture)


def test_a_port_that_is_taken(place: Path, address: str) -> None:
    port = address.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "litevae.demo", "--model", str(place / "model"), "--port", port]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert re.search(rf"^error: --port {port}: .+$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
