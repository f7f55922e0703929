"""Do other readers find in a file the strips that were written into it?"""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from litevae.data import srgb_profile
from litevae.data.strip_files import _blocks, write_strips

PHOTO = np.random.default_rng(0).integers(0, 256, (150, 37, 3), dtype=np.uint8)
PHOTO[40:90] = np.arange(37, dtype=np.uint8)[:, None] * np.array([1, 3, 7], np.uint8)  # smooth: every branch of Paeth


@pytest.mark.parametrize("ending", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 64, 128, 149], [0, 75, 75]])
@pytest.mark.parametrize("width", [37, 1])
def test_pillow_reads_what_was_written(tmp_path: Path, ending: str, cuts: list[int], width: int) -> None:
    path, photo = tmp_path / f"photo{ending}", PHOTO[:, :width]
    write_strips(path, iter(np.split(photo, cuts)), width, 150)
    with Image.open(path) as image:
        assert image.format == ("PNG" if ending == ".png" else "TIFF")
        assert image.info["icc_profile"] == srgb_profile()
        np.testing.assert_array_equal(np.asarray(image), photo)
    with Image.open(path) as image:
        image.verify()
    if ending != ".png":
        np.testing.assert_array_equal(tifffile.imread(path), photo)


def test_a_photo_is_compressed(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:256, :256]
    smooth = np.stack([rows, columns, (rows + columns) // 2], -1).astype(np.uint8)
    for ending, share in ((".png", 0.1), (".tif", 0.7)):
        write_strips(tmp_path / f"a{ending}", [smooth], 256, 256)
        assert (tmp_path / f"a{ending}").stat().st_size < share * smooth.nbytes


@pytest.mark.parametrize(
    ("name", "strips", "message"),
    [
        ("a.jpg", [PHOTO], r"path must end in \.png or \.tif or \.tiff"),
        ("a.png", [PHOTO[:, 1:]], r"strips must be uint8 \[n, 37, 3\], got .*36"),
        ("a.png", [PHOTO.astype(np.int16)], "strips must be uint8"),
        ("a.png", [PHOTO, PHOTO], "strips must have 150 rows together, got 300"),
        ("a.tif", [PHOTO[:10]], "strips must have 150 rows together, got 10"),
    ],
)
def test_wrong_strips_are_refused(tmp_path: Path, name: str, strips: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_strips(tmp_path / name, strips, 37, 150)


def test_blocks_are_of_one_size_but_the_last() -> None:
    blocks = list(_blocks(iter(np.split(PHOTO, [5, 6, 70])), 16))
    assert [len(block) for block in blocks] == [16] * 9 + [6]
    np.testing.assert_array_equal(np.concatenate(blocks), PHOTO)
