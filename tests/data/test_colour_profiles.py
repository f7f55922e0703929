"""Is every image that carries an ICC profile read as sRGB, and is a profile that cannot be used named and ignored?"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from torch import Tensor

from litevae.data import DataConfig, colour_profiles, open_data
from litevae.data.colour_profiles import ProfileError, srgb_profile, to_srgb
from litevae.data.images import decode_image, read_image, to_image, to_rgb

from .icc import cmyk_profile, gray_profile, rgb_profile, srgb_of_lab, srgb_of_linear, srgb_of_rgb

ADOBE_GREEN, SRGB_GREEN = (60, 200, 60), (0, 201, 37)
ADOBE_RGB = rgb_profile()
PHOTOS = Path(str(resources.files("skimage") / "data"))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def green(side: int = 20) -> bytes:
    return encoded(Image.new("RGB", (side, side), ADOBE_GREEN), icc_profile=ADOBE_RGB)


def decoded(content: bytes) -> list[tuple[int, ...]]:
    """The colours of the first row; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode_image(content, "x")
    assert (image.mode, image.info) == ("RGB", {})
    return [image.getpixel((x, 0)) for x in range(image.width)]  # type: ignore[misc]


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_wide_gamut_comes_in_as_srgb(form: str, options: dict[str, Any]) -> None:
    image = Image.new("RGB", (1, 1), ADOBE_GREEN)
    assert decoded(encoded(image, form, icc_profile=ADOBE_RGB, **options)) == [SRGB_GREEN]


def test_colours_are_the_standards() -> None:
    """Within one of 256 values of float64: LittleCMS computes 8-bit pixels in fixed point."""
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    converted = np.asarray(decode_image(encoded(image, icc_profile=ADOBE_RGB), "x"))
    assert np.abs(converted - srgb_of_rgb(colours)).max() <= 1
    assert np.abs(converted.astype(int) - colours).max() > 50


def test_palette_alpha_and_rotation() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*ADOBE_GREEN, 9, 9, 9])
    assert decoded(encoded(palette, icc_profile=ADOBE_RGB))[0] == SRGB_GREEN
    palette.putpixel((1, 0), 1)
    over_white = decoded(encoded(palette, icc_profile=ADOBE_RGB, transparency=1))
    assert over_white == [SRGB_GREEN, (255, 255, 255)]
    clear = Image.new("RGBA", (2, 1), (*ADOBE_GREEN, 51))
    expected = tuple(round(0.8 * 255 + 0.2 * value) for value in SRGB_GREEN)
    assert decoded(encoded(clear, icc_profile=ADOBE_RGB)) == [expected, expected]
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = Image.new("RGB", (2, 1))
    turned.putpixel((0, 0), ADOBE_GREEN)
    assert decoded(encoded(turned, icc_profile=ADOBE_RGB, exif=exif)) == [(0, 0, 0), SRGB_GREEN]


def test_gray_of_8_and_16_bits() -> None:
    """Linear gray of 16 bits in the dark: one of its 8-bit values would be 13 in sRGB."""
    linear = gray_profile(gamma=1.0)
    gray = np.arange(256, dtype=np.uint8)[None]
    expected = srgb_of_linear(gray / 255)
    for image in (Image.fromarray(gray), Image.merge("LA", [Image.fromarray(gray), Image.new("L", (256, 1), 255)])):
        for channel in range(3):
            assert np.abs(np.array(decoded(encoded(image, icc_profile=linear)))[:, channel] - expected).max() <= 1
    assert decoded(encoded(Image.new("LA", (1, 1), (55, 0)), icc_profile=linear)) == [(255, 255, 255)]
    assert decoded(encoded(Image.new("1", (1, 1), 1), icc_profile=linear)) == [(255, 255, 255)]
    wide = np.arange(0, 65536, 37, dtype=np.uint16)[None]
    for form in ("PNG", "TIFF"):
        found = np.array(decoded(encoded(Image.fromarray(wide), form, icc_profile=linear)))
        assert np.abs(found - srgb_of_linear(wide.T / 65535)).max() <= 1
    floats = Image.fromarray((wide / 65535).astype(np.float32))
    assert np.array_equal(decoded(encoded(floats, "TIFF", icc_profile=linear)), found)
    gray_in_rgb = decoded(encoded(Image.new("L", (1, 1), 100), icc_profile=ADOBE_RGB))
    assert gray_in_rgb == decoded(encoded(Image.new("RGB", (1, 1), (100, 100, 100)), icc_profile=ADOBE_RGB))


def test_16_bit_rgb() -> None:
    """Pillow keeps the upper bytes; their profile applies."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = b"\0" + struct.pack(">3H", *(257 * value for value in ADOBE_GREEN))
    profile = b"x\0\0" + zlib.compress(ADOBE_RGB)
    chunks = [(b"IHDR", header), (b"iCCP", profile), (b"IDAT", zlib.compress(pixel)), (b"IEND", b"")]
    assert decoded(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*pair) for pair in chunks)) == [SRGB_GREEN]


def test_cmyk_by_its_own_inks() -> None:
    """At full inks the profile's Lab; the darkest black, of lightness 15, becomes black."""
    inks = {(0, 0, 0, 0): (100, 0, 0), (1, 0, 0, 0): (62, -20, -38), (0, 1, 0, 0): (52, 60, 10)}

    def lab(corner: tuple[int, ...], darkest: float = 0) -> tuple[float, float, float]:
        return inks.get(corner, (darkest, 0, 0))  # type: ignore[return-value]

    for corner, colour in inks.items():
        pixel = tuple(255 * ink for ink in corner)
        image = Image.new("CMYK", (1, 1), pixel)
        for form in ("TIFF", "JPEG"):
            found = decoded(encoded(image, form, icc_profile=cmyk_profile(lab)))[0]
            assert np.abs(np.array(found) - srgb_of_lab(*colour)).max() <= 2, (form, corner)
    black = Image.new("CMYK", (1, 1), (255, 255, 255, 255))
    gray_black = cmyk_profile(lambda corner: lab(corner, darkest=15))
    assert srgb_of_lab(15, 0, 0).min() > 30
    assert decoded(encoded(black, "TIFF", icc_profile=gray_black)) == [(0, 0, 0)]


@pytest.mark.parametrize("name", ["rocket.jpg", "color.png", "page.png"])
def test_photographs_with_profiles_of_cameras_and_screens(name: str) -> None:
    """Adobe's, a laptop's screen, and gray of a printing press: as Pillow converts from profile to profile."""
    with Image.open(PHOTOS / name) as image:
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        flags, intent = ImageCms.Flags.BLACKPOINTCOMPENSATION, ImageCms.Intent.RELATIVE_COLORIMETRIC
        expected = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), intent, "RGB", flags=flags)
        assert expected is not None
        np.testing.assert_array_equal(np.asarray(read_image(PHOTOS / name)), np.asarray(expected))
        assert (np.asarray(expected) != np.asarray(image.convert("RGB"))).mean() > 0.1


def test_srgb_by_any_name_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one pixel is converted, and each profile is looked at once."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with Image.open(PHOTOS / "chelsea.png") as image:
        profiles = [image.info["icc_profile"], srgb_profile()]
    assert b"sRGB IEC61966-2.1" in profiles[0]
    built: list[int] = []
    build = ImageCms.buildTransform
    monkeypatch.setattr(ImageCms, "buildTransform", lambda *options: built.append(1) or build(*options))
    colour_profiles._conversion.cache_clear()
    for _ in range(3):
        for profile in profiles:
            image = to_rgb(Image.open(io.BytesIO(encoded(Image.fromarray(pixels), icc_profile=profile))))
            np.testing.assert_array_equal(np.asarray(image), pixels)
            assert to_srgb(image, profile) is image
        np.testing.assert_array_equal(np.asarray(decode_image(encoded(Image.fromarray(pixels)), "x")), pixels)
    assert len(built) == 4  # each exact and fast
    for _ in range(3):
        decoded(green())
    assert len(built) == 6


def test_threads_share_a_profile() -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8) for seed in range(16)]
    contents = [encoded(Image.fromarray(pixels), icc_profile=ADOBE_RGB) for pixels in pictures]
    alone = [np.asarray(decode_image(content, "x")) for content in contents]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda content: np.asarray(to_rgb(Image.open(io.BytesIO(content)))), contents * 4))
    for found, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_chunks_that_are_no_profile_are_not_read() -> None:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", 100_000))  # linear
    content = encoded(Image.new("RGB", (1, 1), ADOBE_GREEN), pnginfo=chunks)
    assert Image.open(io.BytesIO(content)).info["gamma"] == 1
    assert decoded(content) == [ADOBE_GREEN]


def broken() -> dict[str, bytes]:
    """Name -> a PNG of (60, 200, 60) whose profile cannot be used."""
    image = Image.new("RGB", (20, 20), ADOBE_GREEN)
    files = {
        "noise": encoded(image, icc_profile=bytes(range(256))),
        "cut": encoded(image, icc_profile=ADOBE_RGB[:300]),
        "gray": encoded(image, icc_profile=gray_profile()),
        "cmyk": encoded(image, icc_profile=cmyk_profile(lambda corner: (0, 0, 0))),
    }
    content = bytearray(encoded(image, icc_profile=ADOBE_RGB))
    at = content.index(b"iCCP")
    (length,) = struct.unpack(">I", content[at - 4 : at])
    content[at + 20 : at + 4 + length] = bytes(length - 16)
    content[at + 4 + length : at + 8 + length] = struct.pack(">I", zlib.crc32(content[at : at + 4 + length]))
    return {**files, "packed": bytes(content)}


@pytest.mark.parametrize("name", broken())
def test_broken_profile_is_named_and_ignored(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.png"
    path.write_bytes(broken()[name])
    for read in (lambda: read_image(path), lambda: decode_image(path.read_bytes(), str(path))):
        with pytest.warns(UserWarning, match=rf"^ignored \(ICC profile\) .*{name}\.png: \w[^\n]+$") as caught:
            image = read()
        assert (len(caught), image.getpixel((0, 0))) == (1, ADOBE_GREEN)
        assert caught[0].filename == __file__


def test_altered_profiles_are_used_or_refused() -> None:
    """Whatever LittleCMS makes of hostile bytes, the image is read."""
    rng = np.random.default_rng(0)
    image = Image.new("RGB", (4, 4), ADOBE_GREEN)
    reasons = []
    for profile in (ADOBE_RGB, gray_profile(), cmyk_profile(lambda corner: (50, 0, 0))):
        for _ in range(20):
            altered = np.frombuffer(profile, np.uint8).copy()
            altered[rng.integers(0, len(altered), 6)] = rng.integers(0, 256, 6)
            try:
                assert to_srgb(image, altered.tobytes()).size == (4, 4)
            except ProfileError as error:
                reasons.append(str(error))
    assert len(reasons) > 30
    assert not [reason for reason in reasons if "\n" in reason]


def test_everywhere_an_image_is_read(
    tmp_path: Path, write_tar: Callable[..., Path], parquet: Callable[..., str]
) -> None:
    """Training and held-out images of folders, shards and datasets, in any order and as streams."""
    contents = [green(side) for side in range(20, 30)]
    (tmp_path / "photos").mkdir()
    for number, content in enumerate(contents):
        (tmp_path / "photos" / f"{number}.png").write_bytes(content)
    tar = str(write_tar(tmp_path / "a.tar", [(f"{number}.png", content) for number, content in enumerate(contents)]))
    rows = parquet([contents])
    cases = [
        {"path": str(tmp_path / "photos")},
        {"path": None, "source": "photographs", "validation_path": str(tmp_path / "photos")},
        {"path": tar, "source": "webdataset"},
        {"path": tar, "source": "webdataset", "streaming": True},
        {"path": rows, "source": "dataset", "cache_dir": str(tmp_path / "cache")},
        {"path": rows, "source": "dataset", "streaming": True},
    ]
    for case in cases:
        options = {"crop_size": 8, "evaluation_size": 16, "evaluation_images": 2, "workers": 0}
        data = open_data(DataConfig(**{**options, **case}), seed=0)
        assert {to_image(item.image).getpixel((3, 3)) for item in data.held_out} == {SRGB_GREEN}, case
        if case["path"] is not None:
            batch: Tensor = next(iter(data.batches(0, 1, 4)))
            assert {tuple(crop[:, 3, 3].tolist()) for crop in batch} == {SRGB_GREEN}, case


@pytest.mark.parametrize("workers", [0, 2])
def test_images_with_broken_profiles_are_used_and_named_once(tmp_path: Path, workers: int) -> None:
    for name, content in broken().items():
        (tmp_path / f"{name}.png").write_bytes(content)
    (tmp_path / "empty.png").write_bytes(b"")
    options = {"crop_size": 8, "evaluation_size": 16, "holdout": 0.3, "workers": workers}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = open_data(DataConfig(path=str(tmp_path), **options), seed=0)  # type: ignore[arg-type]
        batches = data.batches(0, 20, 2)
        for batch in batches:
            assert {tuple(crop[:, 3, 3].tolist()) for crop in batch} == {ADOBE_GREEN}
        assert list(data.held_out)
    texts = [str(warning.message) for warning in caught]
    named = sorted(text.partition(".png")[0].rpartition("/")[2] for text in texts if text.startswith("ignored (ICC"))
    assert named == sorted(broken())
    assert batches.skipped() == {"unreadable": 1}


def test_written_profile_is_srgb_and_always_the_same() -> None:
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile())))
    again = srgb_profile.__wrapped__()
    assert (again, again[24:36]) == (srgb_profile(), struct.pack(">6H", 2000, 1, 1, 0, 0, 0))
