"""What do the benchmarks share? Where results go, and the tables at the end of a run.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses   (any stage)
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))  # these files are no installed package

from benchmarks.measure import keep_freed_memory
from benchmarks.report import RESULTS, Results, conditions, document, markdown, write

_RESULTS = pytest.StashKey[Results]()
_CONDITIONS = pytest.StashKey[Mapping[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("litevae")
    group.addoption("--results", type=Path, default=RESULTS, metavar="FOLDER", help="folder for the tables")


def pytest_configure(config: pytest.Config) -> None:
    keep_freed_memory()
    config.stash[_RESULTS] = Results()
    config.stash[_CONDITIONS] = conditions(shlex.join(["pytest", *map(str, config.invocation_params.args)]))


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Results:
    """results.add(table, label, row), results.skip(table, label, reason)."""
    return request.config.stash[_RESULTS]


@pytest.fixture(autouse=True, scope="session")
def exact_float32() -> None:
    """float32 means float32: without TF32, which PyTorch's convolutions use on a GPU unless told otherwise."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for measured in config.stash[_RESULTS].tables.values():
        if not measured.rows:
            continue
        table = document(measured, config.stash[_CONDITIONS])
        terminalreporter.section(measured.table.name)
        terminalreporter.write_line(markdown(table))
        terminalreporter.write_line(write(table, config.getoption("results")))
