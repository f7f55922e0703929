"""What the parts of a run on a GPU ask of pytest: `-p benchmarks.harness.gpu_run.pytest_options`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("litevae on a GPU")
    group.addoption("--keep-fresh-memory", action="store_true", help="do not fill new tensors with NaN: for initcheck")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--keep-fresh-memory"):
        import torch

        # Filled memory counts as initialised, whoever forgot to write to it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
