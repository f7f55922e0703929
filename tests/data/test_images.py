"""Does every kind of image file come out as upright 8-bit RGB with the right pixels?"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litevae.data.images import UnreadableImageError, read_image, to_image, to_tensor

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RGB[..., 0]


def stored(tmp_path: Path, image: Image.Image, name: str, **options: object) -> np.ndarray:
    image.save(tmp_path / name, **options)
    decoded = read_image(tmp_path / name)
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=-1)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "A.PPM"])
def test_rgb_is_kept(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    np.testing.assert_array_equal(stored(tmp_path, Image.fromarray(RGB), name, **options), RGB)


def test_grayscale(tmp_path: Path) -> None:
    np.testing.assert_array_equal(stored(tmp_path, Image.fromarray(GRAY), "a.png"), as_rgb(GRAY))


def test_one_bit(tmp_path: Path) -> None:
    expected = np.where(GRAY > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(expected).convert("1", dither=Image.Dither.NONE)
    np.testing.assert_array_equal(stored(tmp_path, image, "a.png"), as_rgb(expected))


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).quantize(256, dither=Image.Dither.NONE)
    np.testing.assert_array_equal(stored(tmp_path, image, "a.png"), np.asarray(image.convert("RGB")))


def test_palette_with_transparency_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert stored(tmp_path, image, "a.png", transparency=0).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_alpha_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(100, 0, 0, 255), (100, 0, 0, 0), (0, 0, 0, 51)]):
        image.putpixel((x, 0), pixel)
    assert stored(tmp_path, image, "a.png").tolist() == [[[100, 0, 0], [255, 255, 255], [204, 204, 204]]]


def test_gray_with_alpha(tmp_path: Path) -> None:
    assert stored(tmp_path, Image.new("LA", (1, 1), (0, 51)), "a.png").tolist() == [[[204, 204, 204]]]


def test_cmyk(tmp_path: Path) -> None:
    assert stored(tmp_path, Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "a.tiff").tolist() == [[[255, 0, 0]]]


def test_16_bit_gray(tmp_path: Path) -> None:
    """Pillow's own conversion clips everything above 255 to white."""
    wide = GRAY.astype(np.uint16) * 257
    np.testing.assert_array_equal(stored(tmp_path, Image.fromarray(wide), "a.png"), as_rgb(GRAY))
    np.testing.assert_array_equal(stored(tmp_path, Image.fromarray(wide), "a.tiff"), as_rgb(GRAY))


def test_float_gray(tmp_path: Path) -> None:
    image = Image.fromarray(GRAY.astype(np.float32) / 255)
    np.testing.assert_array_equal(stored(tmp_path, image, "a.tiff"), as_rgb(GRAY))


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated 90 degrees clockwise
    np.testing.assert_array_equal(stored(tmp_path, Image.fromarray(RGB), "a.png", exif=exif), np.rot90(RGB, -1))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert np.asarray(read_image(tmp_path / "a.webp"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"this is text, not a picture", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_files_that_are_no_images(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"cannot read the image .*broken\.png: "):
        read_image(path)


def test_cut_off_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(UnreadableImageError, match=r"cut\.png"):
        read_image(path)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImageError, match=r"bomb\.png: Image size \(35 pixels\) exceeds limit"):
        read_image(tmp_path / "bomb.png")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"no such image: .*nothing\.jpg"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(UnreadableImageError, match="not an image but a folder"):
        read_image(tmp_path)


def test_tensor_and_back_keeps_all_256_values() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(as_rgb(values))
    tensor = to_tensor(image)
    assert (tensor.min().item(), tensor.max().item()) == (-1.0, 1.0)
    np.testing.assert_array_equal(np.asarray(to_image(tensor)), as_rgb(values))


def test_to_image_clamps() -> None:
    assert np.asarray(to_image(torch.tensor([[[-3.0, 3.0]]]).expand(3, 1, 2)))[0].tolist() == [[0] * 3, [255] * 3]
