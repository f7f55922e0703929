"""Does a CPU that only emulates bfloat16 say so, once?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from litevae_kernels.precision import warn_where_emulated


@pytest.fixture(params=[False, True, None], ids=["emulated", "has instructions", "without oneDNN"])
def has_instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Whether oneDNN says so; without it nothing has."""
    has_onednn = request.param is not None
    found = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: request.param) if has_onednn else None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
    monkeypatch.setattr(torch.ops, "mkldnn", found)
    warn_where_emulated.cache_clear()
    yield bool(request.param)
    warn_where_emulated.cache_clear()


def test_bfloat16_that_is_emulated_warns_once(has_instructions: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_where_emulated(torch.float16, "cpu")
        warn_where_emulated(torch.bfloat16, "cuda")
        warn_where_emulated(None, "cpu")
    if not has_instructions:
        with pytest.warns(UserWarning, match="no instructions for bfloat16"):
            warn_where_emulated(torch.bfloat16, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_where_emulated(torch.bfloat16, "cpu")
