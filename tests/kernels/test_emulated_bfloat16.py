"""Does a CPU that only emulates bfloat16 say so, once?"""

import warnings
from types import SimpleNamespace

import pytest
import torch

from litevae_kernels.precision import warn_where_emulated


def test_bfloat16_that_is_emulated_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: False))
    warn_where_emulated.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_where_emulated(torch.float16, "cpu")
        warn_where_emulated(torch.bfloat16, "cuda")
        warn_where_emulated(None, "cpu")
    with pytest.warns(UserWarning, match="no instructions for bfloat16"):
        warn_where_emulated(torch.bfloat16, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_where_emulated(torch.bfloat16, "cpu")
    warn_where_emulated.cache_clear()


def test_bfloat16_with_instructions_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True))
    warn_where_emulated.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_where_emulated(torch.bfloat16, "cpu")
    warn_where_emulated.cache_clear()
