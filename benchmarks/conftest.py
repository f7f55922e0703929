"""A run of benchmarks: its options, its plan, its live line, and where the tables go."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))  # these files are no installed package

from benchmarks.harness import measure
from benchmarks.harness.available import missing_import
from benchmarks.harness.disturbance import Watch
from benchmarks.harness.report import RESULTS, Results, conditions, document, markdown, write
from benchmarks.harness.rows import Planned, planned
from benchmarks.harness.schedule import DEFAULT_MINUTES, UNLIMITED, Schedule, Share, positive
from litevae_kernels.files import check_folder

# LiteVAE itself is a diffusers model; its encoder and the operators are not, and are measured without it.
NEED_DIFFUSERS = [
    "bench_decoders.py",
    "bench_evaluation.py",
    "bench_fuse.py",
    "bench_growth.py",
    "bench_memory.py",
    "bench_runtimes.py",
    "bench_training_step.py",
]
ONLY_NAMED = ["bench_fuse.py", "bench_runtimes.py"]  # pytest collects what is named on its command line all the same
collect_ignore = [*ONLY_NAMED, *(NEED_DIFFUSERS if missing_import("diffusers") else [])]
PLAIN_LINE_S = 15.0  # between two live lines where no terminal can overwrite the last one


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("litevae")
    group.addoption("--results", type=Path, metavar="FOLDER", help="folder for the tables, if not benchmarks/results")
    group.addoption(
        "--minutes",
        type=positive,
        default=DEFAULT_MINUTES,
        metavar="N",
        help=f"time of the run, {DEFAULT_MINUTES:g}",
    )
    group.addoption(
        "--row-seconds",
        type=positive,
        default=math.inf,
        metavar="N",
        help="the rounds of a row take no longer, whatever time is left",
    )
    group.addoption("--quick", action="store_true", help="fewest rounds, to try; stores only in a folder of --results")
    group.addoption("--all-rows", action="store_true", help="also rows in a precision that this machine only emulates")


def pytest_report_header() -> list[str]:
    missing = missing_import("diffusers")
    return [f"benchmarks/{name} left out: {missing}" for name in NEED_DIFFUSERS if missing]


def pytest_configure(config: pytest.Config) -> None:
    if (folder := tables_folder(config)) is not None and not config.option.collectonly:
        try:
            check_folder("--results", folder)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
    measure.keep_freed_memory()
    # torch.compile's cache takes code of AVX2 for code of AVX-512, which crashes: every CPU capability has its own.
    kind = f"benchmarks-{torch.__version__}-{torch.backends.cpu.get_cpu_capability()}"
    caches = os.environ.get("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(caches, kind))
    config.pluginmanager.register(Run(config), "benchmark-run")


def tables_folder(config: pytest.Config) -> Path | None:
    """Where the tables are stored; None: nowhere."""
    return config.getoption("results") or (None if config.getoption("quick") else RESULTS)


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Run:
    found = request.config.pluginmanager.get_plugin("benchmark-run")
    assert isinstance(found, Run)
    return found


@pytest.fixture(scope="session")
def results(run: Run) -> Results:
    """results.add(table, label, row), results.skip(table, label, reason)."""
    return run.results


@pytest.fixture
def share(run: Run, request: pytest.FixtureRequest) -> Share:
    """What this test may take of the time of the run. It is skipped where its rows cannot be measured here."""
    return run.share(request.node)


@pytest.fixture(autouse=True, scope="session")
def exact_float32() -> None:
    """float32 means float32: without TF32, which PyTorch's convolutions use on a GPU unless told otherwise."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


class Run:
    """A run of benchmarks: its plan, its results, and what it says on the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.results = config, Results()
        self.folder = tables_folder(config)
        self.schedule = Schedule(config.getoption("minutes"))
        self.tests: dict[str, Planned] = {}
        """Those to come, by id."""
        self.stored: dict[str, str] = {}
        """What became of the file of each table that is finished."""
        self._count, self._said_s = 0, 0.0
        self._watch = Watch()
        self._conditions = conditions(shlex.join(["pytest", *map(str, config.invocation_params.args)]))

    @property
    def terminal(self) -> pytest.TerminalReporter:
        found = self.config.pluginmanager.get_plugin("terminalreporter")
        assert isinstance(found, pytest.TerminalReporter)
        return found

    def share(self, item: pytest.Item) -> Share:
        test = self.tests[item.nodeid]
        if reason := self._reason(test):
            self._leave_out(test, reason)
            pytest.skip(reason)
        if self.config.getoption("quick"):
            return UNLIMITED
        share = self.schedule.share(item.nodeid)
        share.rounds_s = self.config.getoption("row_seconds") * len(test.labels)
        if reason := share.lacks(0.0):
            self._leave_out(test, reason)
            pytest.skip(reason)
        return share

    def _reason(self, test: Planned) -> str:
        return test.unavailable or ("" if self.config.getoption("all_rows") else test.emulated)

    def _leave_out(self, test: Planned, reason: str) -> None:
        for label in test.labels:
            self.results.skip(test.table, label, reason)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests = {item.nodeid: plan for item in session.items if (plan := planned(item))}
        self._count = len(self.tests)
        if not self.config.option.collectonly and self.config.get_verbosity() <= 0:
            self.terminal.showfspath = False  # the live line takes the place of names and dots
        self.schedule.plan({name: 0 if self._reason(test) else test.seconds for name, test in self.tests.items()})
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the tables are shown

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        if (report.when == "call" and report.passed) or report.skipped:
            return (report.outcome, "", "") if self.config.get_verbosity() <= 0 else None
        return None

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Which row of how many runs, and how long is left: a line that is overwritten, or a plain one now and then."""
        if nodeid not in self.tests or self.config.get_verbosity() > 0:
            return
        minutes, seconds = divmod(round(self.schedule.seconds_left()), 60)
        row = f"{self.tests[nodeid].table.name}: {self.tests[nodeid].labels[0]}"
        line = f"row {self._count - len(self.tests) + 1} of {self._count}, about {minutes}:{seconds:02} left, {row}"
        if self.terminal.isatty:
            self.terminal.rewrite(line[: self.terminal._tw.fullwidth - 1], erase=True)
        elif time.monotonic() - self._said_s >= PLAIN_LINE_S:
            self.terminal.write_line(line)
            self._said_s = time.monotonic()
        self.terminal.flush()

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        try:
            return (yield)
        except pytest.skip.Exception as skipped:
            self._leave_out(self.tests[pyfuncitem.nodeid], str(skipped.msg))
            raise

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """The file of a table is written when its last row has ended."""
        test = self.tests.pop(nodeid, None)
        self.schedule.finish(nodeid)
        if test and not any(other.table is test.table for other in self.tests.values()):
            self._store(test.table.name)

    def _store(self, name: str) -> None:
        measured = self.results.tables.get(name)
        if measured and measured.rows:
            if disturbance := self._watch.disturbance():
                measured.conditions["disturbed"] = disturbance
            table = document(measured, self._conditions)
            self.stored[name] = write(table, self.folder) if self.folder else "not stored, because of --quick"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name, measured in self.results.tables.items():
            if name not in self.stored:
                self._store(name)
            if measured.rows:
                terminalreporter.section(name)
                terminalreporter.write_line(markdown(document(measured, self._conditions)))
                terminalreporter.write_line(self.stored[name])
