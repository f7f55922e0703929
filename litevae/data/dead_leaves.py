"""Dead leaves, images that need no data: opaque shapes of all sizes that occlude each other.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 2001. With a density of radii proportional to r^-3
an image is scale invariant: its power spectrum falls as 1 / frequency^2, as it does in photographs.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

_OVERSAMPLING = 2  # drawn at twice the size, then averaged: smooth edges
_LEAVES_PER_POINT = 6.0  # on average; exp(-6) of the points, one in 400, is left to the background
_TEXTURED_SHARE = 0.5  # of the leaves have a grating
_TEXTURE_AMPLITUDE = 30.0  # at most, of 255


def dead_leaves(size: int, rng: np.random.Generator, smallest_radius: float = 1.0) -> np.ndarray:
    """Draw an image: uint8 [size, size, 3], a function of the generator's state alone.

    Radii follow the density r^-3 between `smallest_radius` pixels, less than `size`, and `size`. A leaf is a disc or a
    turned rectangle of one colour, of any saturation; half of them carry a weak grating. With the default about 3,500
    leaves for 128 pixels.
    """
    side = size * _OVERSAMPLING
    x, y, radius = _places(side, smallest_radius * _OVERSAMPLING, rng)
    count = len(radius)
    angle, aspect = rng.uniform(0.0, math.pi, count), rng.uniform(0.25, 1.3, count)
    leaf_index = _draw(side, x, y, radius, angle, aspect, is_disc=rng.random(count) < 0.5)
    pixels = _colours(count + 1, rng)[leaf_index] + _texture(side, count + 1, leaf_index, rng)[..., None]
    pixels = pixels.reshape(size, _OVERSAMPLING, size, _OVERSAMPLING, 3).mean(axis=(1, 3))
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _places(side: int, smallest: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and radius of every leaf that touches the canvas, in pixels of the canvas, the lowest leaf first."""
    largest = float(side)
    # The density r^-3 has the distribution function (a - r^-2) / (a - b), a = smallest^-2, b = largest^-2.
    a, b = smallest**-2, largest**-2
    mean_square = 2 * math.log(largest / smallest) / (a - b)
    margin = largest  # a leaf may touch the canvas from outside
    count = round(_LEAVES_PER_POINT * (side + 2 * margin) ** 2 / (math.pi * mean_square))
    radius = (a - rng.random(count) * (a - b)) ** -0.5
    x, y = rng.uniform(-margin, side + margin, (2, count))
    touches = (x + radius > 0) & (x - radius < side) & (y + radius > 0) & (y - radius < side)
    return x[touches], y[touches], radius[touches]


def _draw(
    side: int,
    x: np.ndarray,
    y: np.ndarray,
    radius: np.ndarray,
    angle: np.ndarray,
    aspect: np.ndarray,
    is_disc: np.ndarray,
) -> np.ndarray:
    """Which leaf is on top at every pixel: int32 [side, side], 0 the background, 1 the lowest leaf."""
    canvas = Image.new("I", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    discs = np.stack([x - radius, y - radius, x + radius, y + radius], axis=1).tolist()
    across = radius * np.cos(angle + aspect), radius * np.sin(angle + aspect)  # half the diagonals of the rectangle
    along = radius * np.cos(angle - aspect), radius * np.sin(angle - aspect)
    corners = [x + across[0], y + across[1], x + along[0], y + along[1]]
    corners += [x - across[0], y - across[1], x - along[0], y - along[1]]
    rectangles = np.stack(corners, axis=1).tolist()
    for leaf, (disc, rectangle, use_disc) in enumerate(zip(discs, rectangles, is_disc.tolist(), strict=True), start=1):
        if use_disc:
            draw.ellipse(disc, fill=leaf)
        else:
            draw.polygon(rectangle, fill=leaf)
    return np.asarray(canvas)


def _colours(count: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [count, 3], around [0, 255]: a random gray, tinted by a random part of a random colour."""
    gray, saturation = rng.uniform(0.0, 255.0, (count, 1)), rng.random((count, 1))
    colour = rng.uniform(0.0, 255.0, (count, 3))
    return (gray + saturation * (colour - colour.mean(axis=1, keepdims=True))).astype(np.float32)


def _texture(side: int, count: int, leaf_index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 [side, side]: the sine of its own direction, wavelength (4 to 32 image pixels) and phase on each leaf."""
    angle, phase = rng.uniform(0.0, math.pi, count), rng.uniform(0.0, 2 * math.pi, count)
    wavelength = _OVERSAMPLING * np.exp(rng.uniform(math.log(4.0), math.log(32.0), count))
    amplitude = _TEXTURE_AMPLITUDE * rng.random(count) * (rng.random(count) < _TEXTURED_SHARE)
    frequency = 2 * math.pi / wavelength
    at = np.arange(side, dtype=np.float32)
    horizontal = (frequency * np.cos(angle)).astype(np.float32)[leaf_index] * at
    vertical = (frequency * np.sin(angle)).astype(np.float32)[leaf_index] * at[:, None]
    return amplitude.astype(np.float32)[leaf_index] * np.sin(
        horizontal + vertical + phase.astype(np.float32)[leaf_index]
    )
