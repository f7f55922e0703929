"""Does a window name the positions that a layer reads, no fewer and no more?"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from litevae.models.tiling.windows import UPSAMPLED, Window, clip, hull, missing


def positions_read(window: Window, size: int, span: tuple[int, int]) -> list[int]:
    """By the gradient of what torch computes."""
    x = torch.zeros(1, 1, size, dtype=torch.float64, requires_grad=True)
    if window.up > 1:
        y = F.interpolate(x, scale_factor=window.up, mode="nearest")
    else:
        y = F.conv1d(x, torch.ones(1, 1, window.kernel, dtype=torch.float64), None, window.stride, window.padding)
    assert y.shape[-1] == window.size(size)
    y[..., slice(*window.made(span))].sum().backward()
    return x.grad.flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize(
    "window",
    [Window(3, 1, 1), Window(1), Window(3, 2, 1), Window(3, 4, 1), Window(2, 2), Window(8, 8), UPSAMPLED],
    ids=str,
)
def test_reads_what_torch_reads(window):
    size = 16
    for first in range(window.size(size)):
        for last in range(first + 1, window.size(size) + 1):
            read = positions_read(window, size, (first, last))
            expected = clip(window.read((first, last)), size)
            if window.stride > window.kernel:
                assert (read[0], read[-1] + 1) == expected
            else:
                assert read == list(range(*expected))


@pytest.mark.parametrize("window", [Window(3, 1, 1), Window(3, 4, 1), Window(4, 4, align=2), UPSAMPLED], ids=str)
def test_what_is_ready_reads_what_is_there_and_the_next_does_not(window):
    size = 32
    for available in range(size):
        ready = window.ready(available, size)
        assert ready % window.align == 0 or window.up > 1
        assert ready == 0 or window.read((0, ready))[1] <= available
        assert window.read((ready, ready + 1))[1] > available
    assert window.ready(size, size) == window.size(size)


def test_spans():
    assert clip((-2, 9), 5) == (0, 5)
    assert missing((-2, 9), 5) == (2, 4)
    assert hull((0, 0), (3, 4)) == hull((3, 4), (0, 0)) == (3, 4)
    assert hull((1, 4), (2, 6)) == (1, 6)
