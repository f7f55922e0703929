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

from benchmarks.harness import measure
from benchmarks.harness.available import missing_import
from benchmarks.harness.report import RESULTS, Results, conditions, document, markdown, write

# LiteVAE itself is a diffusers model; its encoder and the operators are not, and are measured without it.
NEED_DIFFUSERS = ["bench_decoders.py", "bench_growth.py", "bench_memory.py", "bench_training_step.py"]
collect_ignore = NEED_DIFFUSERS if missing_import("diffusers") else []

_RESULTS = pytest.StashKey[Results]()
_CONDITIONS = pytest.StashKey[Mapping[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("litevae")
    group.addoption("--results", type=Path, metavar="FOLDER", help="folder for the tables, if not benchmarks/results")
    group.addoption("--quick", action="store_true", help="few rounds, to try; stores only in a folder of --results")


def pytest_report_header() -> list[str]:
    return [f"benchmarks/{name} left out: {missing_import('diffusers')}" for name in collect_ignore]


def pytest_configure(config: pytest.Config) -> None:
    measure.keep_freed_memory()
    if config.getoption("--quick"):
        measure.MAX_ROUNDS = measure.MIN_ROUNDS
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
        folder = config.getoption("results") or (None if config.getoption("quick") else RESULTS)
        terminalreporter.write_line(write(table, folder) if folder else "not stored, because of --quick")
