"""The three-level Haar DWT as others compute it, and the form in which they return it.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

LEVELS = 3


def slicing(image: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """The DWT from strided slices, one read a level, for sides that 2^LEVELS divides; for eager and torch.compile.

    `dtype` is the result's for an image of uint8.
    """
    low = image if image.is_floating_point() else image.to(dtype) / 127.5 - 1
    channels, pyramid = image.shape[1], []
    for _ in range(LEVELS):
        a, b, c, d = low[..., 0::2, 0::2], low[..., 0::2, 1::2], low[..., 1::2, 0::2], low[..., 1::2, 1::2]
        top, bottom, top_difference, bottom_difference = a + b, c + d, a - b, c - d
        bands = [top + bottom, top - bottom, top_difference + bottom_difference, top_difference - bottom_difference]
        packed = torch.cat(bands, dim=1) * 0.5  # [B, 4C, h, w]
        pyramid.append(packed)
        low = packed[:, :channels]
    return tuple(pyramid)


def ptwt_once(image: Tensor) -> Any:
    import ptwt

    return ptwt.wavedec2(image, "haar", mode="symmetric", level=LEVELS)


def paper(image: Tensor) -> tuple[Tensor, ...]:
    """The paper's way: one wavedec2 for each level from the image itself, concatenated and divided by 2^level."""
    import ptwt

    pyramid = []
    for level in range(1, LEVELS + 1):
        coefficients: Any = ptwt.wavedec2(image, "haar", mode="symmetric", level=level)
        low, details, *_ = coefficients
        pyramid.append(torch.cat([low, *details], dim=1) / 2**level)
    return tuple(pyramid)


def pytorch_wavelets(image: Tensor) -> Any:
    return _pytorch_wavelets_module(image.device)(image)


@cache
def _pytorch_wavelets_module(device: torch.device) -> Any:
    from pytorch_wavelets import DWTForward

    return DWTForward(J=LEVELS, wave="haar", mode="symmetric").to(device)


def mean_scaled(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """Our pyramid in the form of the paper's."""
    return [packed / 2**level for level, packed in enumerate(pyramid, start=1)]


def unpacked(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """Our pyramid in the form of ptwt's: L of the coarsest level, then H, V, D from the coarsest to the finest."""
    levels = [packed.chunk(4, dim=1) for packed in reversed(pyramid)]
    return [levels[0][0], *(band for bands in levels for band in bands[1:])]


def stacked(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """Our pyramid as pytorch_wavelets has it: L of the coarsest level, then [B, C, H V D, h, w], finest first."""
    levels = [packed.chunk(4, dim=1) for packed in pyramid]
    return [levels[-1][0], *(torch.stack(bands[1:], dim=2) for bands in levels)]


class Peer(NamedTuple):
    """Another library's way. `form` brings our pyramid into the form of its result."""

    label: str
    transform: Callable[[Tensor], Any]
    package: str
    form: Callable[[Sequence[Tensor]], list[Tensor]]


PEERS = (
    Peer("ptwt.wavedec2, once", ptwt_once, "ptwt", unpacked),
    Peer("the paper's way: ptwt.wavedec2, 3 times", paper, "ptwt", mean_scaled),
    Peer("pytorch_wavelets", pytorch_wavelets, "pytorch_wavelets", stacked),
)
