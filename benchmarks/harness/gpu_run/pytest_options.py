"""What do the parts of a run on a GPU ask of pytest? `-p benchmarks.harness.gpu_run.pytest_options`

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses   (any stage)
"""

from __future__ import annotations

from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("litevae on a GPU")
    group.addoption(
        "--row-seconds", type=float, metavar="S", help="a row's rounds take at most so long (at least five)"
    )
    group.addoption("--keep-fresh-memory", action="store_true", help="do not fill new tensors with NaN: for initcheck")


def pytest_configure(config: pytest.Config) -> None:
    if (longest := config.getoption("--row-seconds")) is not None:
        _limit_rows(longest)
    if config.getoption("--keep-fresh-memory"):
        import torch

        # Filled memory counts as initialised, whoever forgot to write to it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _limit_rows(longest: float) -> None:
    from benchmarks.harness import measure

    time_interleaved = measure.time_interleaved

    def shorter(benchmark: Any, step: Any, rivals: Any = None, budget_s: float = 3.0) -> Any:
        return time_interleaved(benchmark, step, rivals, min(budget_s, longest))

    measure.time_interleaved = shorter
