"""Which images does the gallery show, and which pictures are saved of each?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from litevae.data import srgb_profile, to_image
from litevae.evaluation.figures import latent_to_rgb
from litevae.evaluation.report.wording import higher_is_better
from litevae_kernels.checks import check_int, wrong_value

ERROR_SCALE = 0.25
"""The error, as a part of the range of values, that has the brightest colour; the same for all images."""
RANKS = ("worst", "median", "best")


@dataclass(frozen=True)
class Chosen:
    """An image of the gallery."""

    index: int
    rank: str
    """One of `RANKS`."""
    by: str
    """The metric that says so."""


def choose_gallery(scores: Mapping[int, Mapping[str, float]], each: int = 2) -> list[Chosen]:
    """The worst, the median and the best images, `each` of them or fewer, and no image twice.

    By LPIPS where all images have it, else by PSNR. Equal scores: the lower index counts as worse. NaN is the worst.

    Args:
        scores: index of an image -> metric -> value.

    Raises:
        ValueError: `each` is not positive, or the images have neither metric.
    """
    check_int("each", each, 1)
    if not scores:
        return []
    shared = set.intersection(*(set(values) for values in scores.values()))
    by = next((name for name in sorted(shared) if name.startswith("lpips")), "psnr")
    if by not in shared:
        raise wrong_value("scores", "have psnr or an lpips of every image", sorted(shared))

    def goodness(index: int) -> tuple[float, int]:
        value = scores[index][by]
        return (-math.inf if math.isnan(value) else value if higher_is_better(by) else -value, index)

    order = sorted(scores, key=goodness)  # from the worst to the best
    ends = min(each, (len(order) + 1) // 3)
    middle = min(each, len(order) - 2 * ends)
    start = (len(order) - middle) // 2
    parts = (order[:ends], order[start : start + middle], order[len(order) - ends :][::-1])
    return [Chosen(index, rank, by) for rank, part in zip(RANKS, parts, strict=True) for index in part]


def save_gallery_images(
    folder: Path, index: int, size: int, original: Tensor, reconstruction: Tensor, latent: Tensor | None
) -> dict[str, str | None]:
    """Write the pictures of an image into folder/images.

    Args:
        original, reconstruction: float [3, H, W] in [-1, 1].
        latent: float [C, h, w], shown as `latent_to_rgb` does, a pixel for each of its places.

    Returns:
        "original", "reconstruction", "error", "latent" -> path of a PNG in `folder`; None where there is no latent.
    """
    if original.shape != reconstruction.shape:
        raise wrong_value("reconstruction", f"have the original's shape {list(original.shape)}", reconstruction)
    pictures = {
        "original": to_image(original),
        "reconstruction": to_image(reconstruction),
        "error": error_map(original, reconstruction),
        "latent": None if latent is None else to_image(latent_to_rgb(latent)),
    }
    paths: dict[str, str | None] = dict.fromkeys(pictures)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for kind, picture in pictures.items():
        if picture is not None:
            paths[kind] = path = f"images/{size}-{index}-{kind}.png"
            picture.save(folder / path, optimize=True, icc_profile=srgb_profile())
    return paths


def error_map(original: Tensor, reconstruction: Tensor) -> Image.Image:
    """The mean over channels of |reconstruction - original|, in Matplotlib's colours "magma".

    An error of 0 is black, one of `ERROR_SCALE` of the range of values or more is almost white.

    Args:
        original, reconstruction: float [3, H, W] in [-1, 1].
    """
    error = (reconstruction.detach().float() - original.float()).abs().mean(dim=0).cpu() / 2  # [H, W] in [0, 1]
    levels = error.div(ERROR_SCALE).clamp(0, 1).nan_to_num(1.0).mul(255).round().to(torch.uint8)
    picture = Image.fromarray(levels.numpy()).convert("P")
    picture.putpalette(np.array(magma(256), dtype=np.uint8).tobytes())
    return picture


def magma(count: int) -> list[tuple[int, int, int]]:
    """`count` colours, from an error of 0 to the largest."""
    from matplotlib import colormaps

    colours = colormaps["magma"](np.linspace(0, 1, count), bytes=True)[:, :3]
    return [(int(red), int(green), int(blue)) for red, green, blue in colours]
