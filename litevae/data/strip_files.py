"""An image file written strip by strip, in memory that does not depend on the image's height: PNG and TIFF."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from litevae.data.colour_profiles import srgb_profile
from litevae_kernels.checks import wrong_value

ENDINGS = (".png", ".tif", ".tiff")
LEVEL = 6  # of zlib
PNG_ROWS, TIFF_ROWS = 16, 64  # compressed at once; of a TIFF, to a strip
_LARGEST_TIFF = 2**32 - 2**25  # bytes; a BigTIFF has no limit

Strips = Iterable[np.ndarray]  # uint8 [n, width, 3], sRGB, from top to bottom


def write_strips(path: Path, strips: Strips, width: int, height: int) -> None:
    """Write an RGB image as its strips come; the ending of `path` says the format.

    Args:
        path: of a .png, .tif or .tiff.
        strips: uint8 [n, width, 3] in sRGB, from top to bottom, `height` rows together.
        width, height: of the image.

    Raises:
        ValueError: another ending, or strips of another size. What was written until then is no whole file.
    """
    if path.suffix.lower() not in ENDINGS:
        raise wrong_value("path", f"end in {' or '.join(ENDINGS)}", str(path))
    write = _write_png if path.suffix.lower() == ".png" else _write_tiff
    write(path, _checked(strips, width, height), width, height)


def _checked(strips: Strips, width: int, height: int) -> Iterator[np.ndarray]:
    done = 0
    for strip in strips:
        if strip.dtype != np.uint8 or strip.shape[1:] != (width, 3):
            rule = f"be uint8 [n, {width}, 3]"
            raise wrong_value("strips", rule, f"{strip.dtype} {list(strip.shape)}")
        done += len(strip)
        yield strip
    if done != height:
        raise wrong_value("strips", f"have {height} rows together", done)


def _write_png(path: Path, strips: Iterator[np.ndarray], width: int, height: int) -> None:
    """PNG specification (third edition): 8-bit RGB, every row by the Paeth filter."""
    compressor = zlib.compressobj(LEVEL)
    above = np.zeros((1, width * 3), np.uint8)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile())))
        for block in _blocks(strips, PNG_ROWS):
            rows = block.reshape(len(block), width * 3)
            if compressed := compressor.compress(_paeth(rows, np.concatenate([above, rows[:-1]])).tobytes()):
                file.write(_chunk(b"IDAT", compressed))
            above = rows[-1:].copy()
        file.write(_chunk(b"IDAT", compressor.flush()))
        file.write(_chunk(b"IEND", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _paeth(rows: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The rows [n, 3 W] less what their neighbours to the left and above predict, the filter's number in front."""
    up = above.astype(np.int16)
    left, corner = (np.pad(x[:, :-3], ((0, 0), (3, 0))) for x in (rows.astype(np.int16), up))
    to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
    nearest_above = np.where(to_up <= to_corner, up, corner)
    predicted = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest_above)
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 4
    filtered[:, 1:] = rows - predicted.astype(np.uint8)
    return filtered


def _write_tiff(path: Path, strips: Iterator[np.ndarray], width: int, height: int) -> None:
    import tifffile

    tifffile.imwrite(
        path,
        (zlib.compress(_differences(block).tobytes(), LEVEL) for block in _blocks(strips, TIFF_ROWS)),
        shape=(height, width, 3),
        dtype=np.uint8,
        photometric="rgb",
        compression="zlib",
        predictor=2,
        rowsperstrip=TIFF_ROWS,
        iccprofile=srgb_profile(),
        bigtiff=width * height * 3 > _LARGEST_TIFF,
        metadata=None,
    )


def _differences(rows: np.ndarray) -> np.ndarray:
    """TIFF's horizontal predictor: each pixel [n, W, 3] less the one to its left."""
    return np.concatenate([rows[:, :1], rows[:, 1:] - rows[:, :-1]], axis=1)


def _blocks(strips: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same rows, `rows` at a time; the last may be fewer."""
    waiting: list[np.ndarray] = []
    count = 0
    for strip in strips:
        waiting.append(strip)
        count += len(strip)
        if count < rows:
            continue
        joined = np.concatenate(waiting)
        whole = count // rows * rows
        yield from (joined[first : first + rows] for first in range(0, whole, rows))
        waiting, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)
