"""Do dead leaves have the statistics that they are known for, and is an image a function of its seed?"""

import numpy as np
import pytest

from litevae.data.dead_leaves import _places, dead_leaves
from litevae.seeds import derive_rng


def drawn(count: int, size: int) -> list[np.ndarray]:
    return [dead_leaves(size, np.random.default_rng(seed)) for seed in range(count)]


def spectral_slope(images: list[np.ndarray]) -> float:
    """Of log power over log frequency, between 3 periods per image and 0.35 periods per pixel."""
    size = len(images[0])
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = np.zeros((size, size))
    for image in images:
        gray = image.mean(axis=-1)
        power += np.abs(np.fft.fft2((gray - gray.mean()) * window)) ** 2
    along = np.fft.fftfreq(size) * size
    radius = np.hypot(along[:, None], along)
    rings = np.arange(3, int(0.35 * size))
    profile = [power[np.abs(radius - ring) < 0.5].mean() for ring in rings]
    return float(np.polyfit(np.log(rings), np.log(profile), 1)[0])


def test_power_falls_like_one_over_frequency_squared() -> None:
    assert spectral_slope(drawn(24, 128)) == pytest.approx(-2, abs=0.3)
    noise = [np.random.default_rng(seed).integers(0, 256, (128, 128, 3)) for seed in range(3)]
    assert spectral_slope(noise) == pytest.approx(0, abs=0.1)


def test_half_the_size_looks_the_same() -> None:
    """Scale invariance: averaged over squares of 2, 4 or 8 pixels, images are as rough from pixel to pixel."""

    def roughness(images: np.ndarray, square: int) -> float:
        side = 128 // square
        averaged = images.reshape(-1, side, square, side, square, 3).mean(axis=(2, 4))
        return float(np.sqrt(np.square(np.diff(averaged, axis=2)).mean()))

    leaves = np.stack(drawn(32, 128)).astype(float)
    noise = np.random.default_rng(0).integers(0, 256, leaves.shape).astype(float)
    for square in (4, 8):
        assert roughness(leaves, square) == pytest.approx(roughness(leaves, 2), rel=0.15)
        assert roughness(noise, square) == pytest.approx(roughness(noise, 2) * 2 / square, rel=0.05)


def test_radii_follow_the_inverse_cube() -> None:
    x, y, radius = _places(1024, 2.0, np.random.default_rng(0))
    inside = radius[(x > 0) & (x < 1024) & (y > 0) & (y < 1024)]  # whoever touches from outside is large
    assert inside.min() >= 2.0
    for limit in (4.0, 8.0, 16.0):
        assert (inside > limit).mean() == pytest.approx((limit**-2 - 1024**-2) / (2.0**-2 - 1024**-2), rel=0.05)


def test_a_function_of_the_seed_and_nothing_else() -> None:
    first = dead_leaves(32, derive_rng(3, "dead leaves", 5))
    np.random.default_rng(0).random(7)
    np.testing.assert_array_equal(dead_leaves(32, derive_rng(3, "dead leaves", 5)), first)
    assert (dead_leaves(32, derive_rng(3, "dead leaves", 6)) != first).mean() > 0.9
    assert (first.shape, first.dtype) == ((32, 32, 3), np.uint8)


def test_colours_are_spread_and_edges_are_soft() -> None:
    images = np.stack(drawn(8, 64))
    assert np.histogram(images, bins=4, range=(0, 256))[0].min() > 0.1 * images.size
    channels = images.reshape(-1, 3).astype(float)
    assert 0.3 < np.corrcoef(channels.T)[0, 1] < 0.9  # between gray and independent channels, as in photographs


@pytest.mark.parametrize("radius", [4.0, 14.0])
def test_no_leaf_is_smaller_than_asked(radius: float) -> None:
    places = [_places(128, 2 * radius, np.random.default_rng(seed)) for seed in range(3)]
    radii = np.concatenate([found[2] for found in places]) / 2  # drawn at twice the size
    assert radius <= radii.min() < 1.05 * radius
    assert radii.max() > 2 * radius
    few, many = (np.stack([dead_leaves(64, np.random.default_rng(n), r) for n in range(4)]) for r in (radius, 1.0))
    edges = [np.abs(np.diff(images.astype(int), axis=1)).mean() for images in (few, many)]
    assert edges[0] < 0.8 * edges[1]
