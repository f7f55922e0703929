"""For users of ptwt and PyWavelets: `wavedec2` and `waverec2` with ptwt's signatures and layout, for Haar.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from litevae_kernels import checks
from litevae_kernels.haar_dwt2d import haar_dwt2d, haar_idwt2d
from litevae_kernels.haar_dwt2d.api import MAX_LEVELS

HAAR_NAMES = ("haar", "db1")
MODES = ("constant", "symmetric", "zero", "reflect", "periodic")


class WaveletDetailTuple2d(NamedTuple):
    """One level's details: horizontal (H), vertical (V), diagonal (D), as ptwt's class of this name."""

    horizontal: Tensor
    vertical: Tensor
    diagonal: Tensor


def wavedec2(
    data: Tensor,
    wavelet: Any = "haar",
    *,
    mode: str = "reflect",
    level: int | None = None,
    axes: tuple[int, int] = (-2, -1),
) -> tuple[Any, ...]:
    """`ptwt.wavedec2` for Haar: (L of the coarsest level, its (H, V, D), ..., the finest (H, V, D)).

    Args:
        data: [..., H, W] with at least two dimensions; any floating dtype (ptwt itself takes float32 and float64).
        wavelet: "haar", "db1" or a `pywt.Wavelet` of that name.
        mode: the extension of odd sides, with ptwt's names and default. Modes differ only where a level has an odd
            side. There only "symmetric" and "constant" are supported, which both repeat the last row or column.
        level: number of levels. None takes as many as have a 2x2 block to transform, as ptwt does.
        axes: the two axes to transform.

    Raises:
        ValueError: another wavelet, or another mode where a side is odd.

    Example:
        >>> low, details = wavedec2(torch.ones(3, 4, 4), "haar", level=1)
        >>> low.shape, details.horizontal.abs().max().item()
        (torch.Size([3, 2, 2]), 0.0)
    """
    checks.check_floating_tensor("data", data)
    if data.ndim < 2:
        raise checks.wrong_value("data", "have at least two dimensions", data)
    _check_haar(wavelet)
    checks.check_choice("mode", mode, MODES)
    images = data.movedim(axes, (-2, -1))
    height, width = images.shape[-2:]
    if level is None:
        level = max(1, min(height, width).bit_length() - 1)
    checks.check_int("level", level, 1, MAX_LEVELS)
    if mode not in ("symmetric", "constant") and (height % (1 << level) or width % (1 << level)):
        way_out = 'pass mode="symmetric", or sides that 2^level divides'
        raise checks.wrong_value("mode", f"be 'symmetric' or 'constant' for sides {height}x{width}", mode, way_out)
    pyramid = haar_dwt2d(images.reshape(1, -1, height, width), level)
    split = [_unpack(packed, images.shape[:-2], axes) for packed in reversed(pyramid)]
    return (split[0][0], *(WaveletDetailTuple2d(*bands[1:]) for bands in split))


def waverec2(coeffs: Sequence[Any], wavelet: Any = "haar", axes: tuple[int, int] = (-2, -1)) -> Tensor:
    """`ptwt.waverec2` for Haar, the inverse of `wavedec2`. An odd side comes back one longer, as in ptwt.

    Example:
        >>> image = torch.randn(3, 8, 8)
        >>> torch.allclose(waverec2(wavedec2(image, level=3)), image, atol=1e-6)
        True
    """
    _check_haar(wavelet)
    if not isinstance(coeffs, (list, tuple)) or len(coeffs) < 2:
        raise checks.wrong_kind("coeffs", "be (L, (H, V, D), ...) as wavedec2 returns it", coeffs)
    low, *details = coeffs
    packed_levels = []
    for bands in reversed(details):  # finest first
        if not isinstance(bands, (list, tuple)) or len(bands) != 3:
            raise checks.wrong_kind("coeffs", "have triples (H, V, D) after its first item", bands)
        # The inverse reads L of the coarsest level only. In the other levels zeros stand in its place.
        first = low if bands is details[0] else torch.zeros_like(bands[0])
        moved = [band.movedim(axes, (-2, -1)) for band in (first, *bands)]
        h, w = moved[1].shape[-2:]
        packed_levels.append(torch.cat([band[..., :h, :w].reshape(1, -1, h, w) for band in moved], dim=1))
    image = haar_idwt2d(packed_levels)
    leading = low.movedim(axes, (-2, -1)).shape[:-2]
    return image.reshape(*leading, *image.shape[-2:]).movedim((-2, -1), axes)


def _check_haar(wavelet: Any) -> None:
    name = wavelet if isinstance(wavelet, str) else getattr(wavelet, "name", wavelet)
    checks.check_choice("wavelet", str(name).lower(), HAAR_NAMES)


def _unpack(packed: Tensor, leading: torch.Size, axes: tuple[int, int]) -> list[Tensor]:
    return [band.reshape(*leading, *packed.shape[-2:]).movedim((-2, -1), axes) for band in packed.chunk(4, dim=1)]
