"""Do the tables hold the numbers, and is the best one marked?"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litevae.evaluation.report.tables import Cell, command_line, compared, made_tables, metrics_table, notices

Made = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.mark.parametrize(
    ("metric", "values", "texts", "best"),
    [
        ("psnr", [20.0, 25.0, 24.0], ["20.00", "25.00", "24.00"], [1]),
        ("rfid", [20.0, 25.0, 24.0], ["20.00", "25.00", "24.00"], [0]),
        ("rfid", [1.001, 1.004, 1.2], ["1.00", "1.00", "1.20"], [0, 1]),
        ("ssim", [0.5], ["0.5000"], []),
        ("ssim", [None, 0.5], ["-", "0.5000"], []),
        ("psnr", [math.nan, 3.0, 2.0], ["not a number", "3.00", "2.00"], [1]),
    ],
)
def test_the_best_is_marked(metric: str, values: list[float | None], texts: list[str], best: list[int]) -> None:
    cells = compared(metric, values)
    assert [cell.text for cell in cells] == texts
    assert [index for index, cell in enumerate(cells) if cell.best] == best


def test_rows_are_sizes_of_one_model(make_results: Made) -> None:
    table = metrics_table([make_results()[1]])
    assert table.header == ["Size", "PSNR [dB] ↑", "SSIM ↑", "rFID ↓", "FWD ↓"]
    [(_, rows)] = table.groups
    cells = [Cell("20.12"), Cell("0.6250"), Cell("8.50"), Cell("3.250")]
    assert [(row.head, row.cells) for row in rows] == [("16 x 16", cells), ("32 x 32", cells)]


def test_rows_are_models_in_groups_of_sizes(make_results: Made) -> None:
    one, other = make_results("A")[1], make_results("B", seed=1)[1]
    del other["sizes"]["32"]["metrics"]["fwd"]
    table = metrics_table([one, other])
    assert [(group, [row.head for row in rows]) for group, rows in table.groups] == [
        ("16 x 16", ["A", "B"]),
        ("32 x 32", ["A", "B"]),
    ]
    assert table.groups[1][1][0].cells == [Cell("20.12"), Cell("0.6250", True), Cell("8.50", True), Cell("3.250")]
    assert table.groups[1][1][1].cells == [Cell("21.12", True), Cell("0.6250", True), Cell("8.50", True), Cell("-")]


def test_warnings_say_where(make_results: Made) -> None:
    one, other = make_results("A")[1], make_results("B")[1]
    one["sizes"]["16"]["warnings"].append("kid: small")
    warnings, missing = notices([one, other])
    assert warnings == ["rfid: 6 images are few (at 16, 32)", "kid: small (A at 16)"]
    assert missing == [("kid", "needs inception.pth from https://example.org/weights")]


def test_everything_about_the_measurement_is_listed(make_results: Made) -> None:
    one, other = make_results("A")[1], make_results("B")[1]
    other["versions"]["torch"] = "2.13"
    tables = {table.caption: {row.head: [cell.text for cell in row.cells] for _, rows in table.groups for row in rows}
              for table in made_tables([one, other])}  # fmt: skip
    assert tables == {
        "Protocol": {"name": ["ldm"], "crop": ["centre"], "latent": ["mode"]},
        "Data": {"name": ["photographs"], "images": ["6"], "hash": ["sha256:01ab"], "skipped": ["unreadable: 1"]},
        "Model": {
            "name": ["runs/A", "runs/B"],
            "label": ["A", "B"],
            "class": ["LiteVAE", "LiteVAE"],
            "encoder_parameters": ["1,038,308", "1,038,308"],
        },
        "Versions": {
            "litevae": ["0.1.0", "0.1.0"],
            "machine.cpu": ["a CPU", "a CPU"],
            "date": ["2026-11-27", "2026-11-27"],
            "seconds at 16": ["1.5", "1.5"],
            "seconds at 32": ["1.5", "1.5"],
            "torch": ["-", "2.13"],
        },
    }


def test_a_command_is_as_a_shell_takes_it(make_results: Made) -> None:
    assert command_line(make_results()[1]) == "python -m litevae.evaluate runs/S 'my photographs'"
