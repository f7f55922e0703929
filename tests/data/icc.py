"""ICC profiles from bytes (ICC.1:2001-04), and what their colours are in sRGB by the standards' formulas."""

import struct
from collections.abc import Callable

import numpy as np

WHITE = np.array([0.9642, 1.0, 0.8249])  # D50, the profile connection space's
# The primaries and white as columns of XYZ, adapted to D50.
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def rgb_profile(primaries: np.ndarray = ADOBE_RGB, gamma: float = 2.2) -> bytes:
    """A profile of three primaries and one gamma, like Adobe RGB (1998)."""
    columns = {f"{name}XYZ": _xyz(column) for name, column in zip("rgb", primaries.T, strict=True)}
    return _profile("RGB ", "XYZ ", {**columns, **{f"{name}TRC": _gamma(gamma) for name in "rgb"}})


def gray_profile(gamma: float = 1.0) -> bytes:
    return _profile("GRAY", "XYZ ", {"kTRC": _gamma(gamma)})


def cmyk_profile(lab: Callable[[tuple[int, ...]], tuple[float, float, float]]) -> bytes:
    """Of inks that are 0 or 1, whose Lab is given, and what lies between."""
    corners = [tuple(corner >> shift & 1 for shift in (3, 2, 1, 0)) for corner in range(16)]
    colours = b"".join(
        struct.pack(">3H", round(lightness * 652.8), round((a + 128) * 256), round((b + 128) * 256))
        for lightness, a, b in map(lab, corners)
    )
    identity = b"".join(_fixed(value) for value in np.eye(3).ravel())
    ramp = struct.pack(">2H", 0, 65535)
    table = b"mft2" + bytes(4) + struct.pack(">4B", 4, 3, 2, 0) + identity + struct.pack(">2H", 2, 2)
    table += 4 * ramp + colours + 3 * ramp
    return _profile("CMYK", "Lab ", {"A2B0": table, "A2B1": table}, kind="scnr")


def srgb_of_rgb(pixels: np.ndarray, primaries: np.ndarray = ADOBE_RGB, gamma: float = 2.2) -> np.ndarray:
    """8-bit [..., 3] of `rgb_profile` -> float64 [..., 3] in [0, 255]."""
    return _srgb((pixels / 255.0) ** (round(gamma * 256) / 256) @ primaries.T)


def srgb_of_lab(lightness: float, a: float, b: float) -> np.ndarray:
    f = (lightness + 16) / 116 + np.array([a / 500, 0, -b / 200])
    return _srgb(WHITE * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))


def srgb_of_linear(light: np.ndarray) -> np.ndarray:
    """The curve of IEC 61966-2-1: light in [0, 1] -> float64 in [0, 255]."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _srgb(xyz: np.ndarray) -> np.ndarray:
    return srgb_of_linear(xyz @ np.linalg.inv(SRGB).T)


def _profile(space: str, connection: str, tags: dict[str, bytes], kind: str = "mntr") -> bytes:
    description = b"test\0"
    tags = {
        "desc": b"desc" + bytes(4) + struct.pack(">I", len(description)) + description + bytes(78),
        "cprt": b"text" + bytes(4) + description,
        "wtpt": _xyz(WHITE),
        **tags,
    }
    content, entries, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        entries += name.encode() + struct.pack(">II", start + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    header = struct.pack(">I4xI", start + len(content), 0x02400000) + f"{kind}{space}{connection}".encode()
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + b"".join(map(_fixed, WHITE))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + content


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, values))


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))
