"""Does each protocol resize and cut as the tool that it is named after?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates
from skimage import data as photographs

from litevae.data import PROTOCOLS, evaluation_view, protocol
from litevae.pixels import to_float

ASTRONAUT = Image.fromarray(photographs.astronaut()[:500, 30:440])  # 410 x 500


def bilinear(image: Image.Image, size: int) -> np.ndarray:
    """OpenCV's INTER_LINEAR in float64: pixel centres at 1/2, edges repeated, no filter before; then the centre."""
    width, height = (round(side * size / min(image.size)) for side in image.size)
    rows = (np.arange(height) + 0.5) * image.height / height - 0.5
    columns = (np.arange(width) + 0.5) * image.width / width - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    channels = np.asarray(image, dtype=np.float64).transpose(2, 0, 1)
    resized = np.stack([map_coordinates(channel, grid, order=1, mode="nearest") for channel in channels])
    top, left = (height - size) // 2, (width - size) // 2
    return resized[:, top : top + size, left : left + size]


@pytest.mark.parametrize("size", [32, 256, 410, 600])
def test_ldm_is_bilinear_without_antialiasing(size: int):
    pixels = protocol("ldm").view(ASTRONAUT, size)
    assert pixels.shape == (3, size, size)
    # Rounded to nearest; coordinates in float32 move a value by far less than 0.01.
    assert np.abs(pixels.numpy() - bilinear(ASTRONAUT, size)).max() < 0.51


def test_adm_halves_by_means_before_it_is_bicubic():
    pixels = torch.from_numpy(np.asarray(ASTRONAUT)[:400, :400].copy()).permute(2, 0, 1)
    seen = protocol("adm").view(Image.fromarray(np.asarray(ASTRONAUT)[:400, :400]), 100)
    means = pixels.double()
    for kernel in ((1, 2), (2, 1), (1, 2), (2, 1)):  # 400 -> 200 -> 100; Pillow rounds after rows and after columns
        means = torch.nn.functional.avg_pool2d(means, kernel).add(0.5).floor()
    assert torch.equal(seen.double(), means)


def test_adm_is_bicubic_below_a_factor_of_2():
    expected = ASTRONAUT.resize((300, 366), Image.Resampling.BICUBIC).crop((0, 33, 300, 333))
    assert np.array_equal(protocol("adm").view(ASTRONAUT, 300).permute(1, 2, 0).numpy(), np.asarray(expected))


def test_lanczos_is_what_training_evaluates():
    assert torch.equal(to_float(protocol("lanczos").view(ASTRONAUT, 256)), evaluation_view(ASTRONAUT, 256))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_image_of_the_size_is_left_as_it_is(name: str):
    square = Image.fromarray(photographs.astronaut()[:256, :256])
    assert np.array_equal(protocol(name).view(square, 256).permute(1, 2, 0).numpy(), np.asarray(square))


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="protocol must be ldm, adm, lanczos, got 'cv2'"):
        protocol("cv2")
