"""The rows of a table as tests: their labels, why they are left out, and how long they take."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from benchmarks.harness import measure
from benchmarks.harness.report import Table

Test = Callable[..., None]


class Planned(NamedTuple):
    """One test: the rows of `table` that it measures, why it is left out (or ""), and its seconds in a run.

    `emulated` is a reason that --all-rows overrules.
    """

    table: Table
    labels: Sequence[str]
    seconds: float
    unavailable: str = ""
    emulated: str = ""


class Group(NamedTuple):
    """Rows that one test measures together; `label` is the test's own."""

    label: str
    labels: Sequence[str]
    unavailable: str = ""
    emulated: str = ""


def measures(table: Table, rows: Sequence[Any], seconds: float | Callable[[Any], float]) -> Callable[[Test], Test]:
    """A test for each of `rows`; `seconds` is what one takes in a run of the default length (schedule.py).

    A row has a `label`, or `labels` if its test measures several rows of the table. It may have reasons why it is
    `unavailable` or `emulated` here.
    """

    def plan(row: Any) -> Planned:
        labels = getattr(row, "labels", (row.label,))
        reasons = getattr(row, "unavailable", ""), getattr(row, "emulated", "")
        return Planned(table, labels, seconds(row) if callable(seconds) else seconds, *reasons)

    def decorated(test: Test) -> Test:
        parametrized: Any = pytest.mark.parametrize("row", rows, ids=lambda row: row.label)(test)
        parametrized.plans = {row.label: plan(row) for row in rows}
        timed: Test = pytest.mark.benchmark(group=table.name, timer=measure.clock)(parametrized)
        return timed

    return decorated


def planned(item: Any) -> Planned | None:
    """The plan of a collected test; None if it is no benchmark."""
    plans: Mapping[str, Planned] = getattr(getattr(item, "function", None), "plans", {})
    return plans.get(item.callspec.params["row"].label) if plans else None
