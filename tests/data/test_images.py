"""Does every kind of image file come out as upright 8-bit RGB with the right pixels?"""

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litevae.data.errors import UnreadableImageError
from litevae.data.images import decode_image, read_image, to_image, to_pixels, to_tensor

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


def png_of_16_bit_rgb(pixels: np.ndarray) -> bytes:
    """Pillow and imageio write no such file, cameras' converters do."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_rgb(tmp_path: Path) -> None:
    """The upper byte: v * 257 has v in both."""
    from skimage.io import imsave

    wide = RGB.astype(np.uint16) * 257
    imsave(tmp_path / "a.tiff", wide, check_contrast=False)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.tiff")), RGB)
    np.testing.assert_array_equal(np.asarray(decode_image(png_of_16_bit_rgb(wide), "a.png")), RGB)


def test_damaged_exif_counts_as_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG", exif=b"Exif\x00\x00" + exif.tobytes()[:12])
    np.testing.assert_array_equal(np.asarray(decode_image(file.getvalue(), "a.png")), RGB)


def test_content_and_file_are_read_alike(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    image = decode_image((tmp_path / "a.png").read_bytes(), "row 1")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(read_image(tmp_path / "a.png")))
    with pytest.raises(UnreadableImageError, match="cannot read the image row 1: the file is empty") as error:
        decode_image(b"", "row 1")
    assert error.value.reason == "the file is empty"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"this is text, not a picture", "not an image in a format that Pillow reads"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not an image in a format that Pillow reads"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n", "not an image in a format that Pillow reads"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"cannot read the image .*broken\.png: ") as error:
        read_image(path)
    assert error.value.reason == reason


def test_cut_off_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(UnreadableImageError, match=r"cut\.png"):
        read_image(path)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns above MAX_IMAGE_PIXELS, which is no reason to leave a photo out, and raises above twice that."""
    Image.fromarray(RGB).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImageError, match=r"bomb\.png: Image size \(35 pixels\) exceeds limit"):
        read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "bomb.png")), RGB)


def test_a_real_bomb_is_refused_without_decoding_it() -> None:
    """60,000 x 60,000 pixels in a hundred bytes of header: a claim that must not be believed."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "BMP")
    content = bytearray(file.getvalue())
    content[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(UnreadableImageError, match="could be decompression bomb"):
        decode_image(bytes(content), "bomb.bmp")


@pytest.mark.parametrize(
    "form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "AVIF", "BLP", "SGI"]
)
def test_altered_files_are_read_or_refused(form: str) -> None:
    """Whatever a decoder raises: AVIF has been seen to raise RuntimeError, BLP an error class of its own."""
    file = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    (image.quantize() if form == "BLP" else image).save(file, form)
    draw = random.Random(form)
    reasons = []
    for _ in range(60):
        content = bytearray(file.getvalue())
        for _ in range(draw.choice([1, 3, 10])):
            content[draw.randrange(min(len(content), draw.choice([30, 10_000])))] = draw.randrange(256)
        try:
            assert decode_image(bytes(content[: draw.choice([len(content), draw.randrange(len(content))])]), "x").size
        except UnreadableImageError as error:
            reasons.append(error.reason)
    assert len(reasons) > 5
    assert not [reason for reason in reasons if "\n" in reason or " at 0x" in reason]


def test_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"no such image: .*nothing\.jpg"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(UnreadableImageError, match="not an image but a folder"):
        read_image(tmp_path)


def test_pixels_are_channels_first() -> None:
    pixels = to_pixels(Image.fromarray(RGB))
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    np.testing.assert_array_equal(pixels.numpy(), RGB.transpose(2, 0, 1))


def test_tensor_and_back_keeps_all_256_values() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(as_rgb(values))
    tensor = to_tensor(image)
    assert (tensor.min().item(), tensor.max().item()) == (-1.0, 1.0)
    np.testing.assert_array_equal(np.asarray(to_image(tensor)), as_rgb(values))


def test_to_image_clamps() -> None:
    assert np.asarray(to_image(torch.tensor([[[-3.0, 3.0]]]).expand(3, 1, 2)))[0].tolist() == [[0] * 3, [255] * 3]
