"""Are metrics called as papers call them, and does every text mean nothing but itself?"""

import html
import math
from typing import Any

import pytest

from litevae.evaluation.report.wording import (
    aligned,
    anything,
    flatten,
    higher_is_better,
    markdown_cell,
    metric_header,
    metric_value,
    number,
    visible,
)

markdown = pytest.importorskip("markdown")  # tensorboard brings it


@pytest.mark.parametrize(
    ("metric", "header", "value", "text"),
    [
        ("psnr", "PSNR [dB] ↑", 24.305, "24.30"),
        ("ssim", "SSIM ↑", 0.71236, "0.7124"),
        ("ms-ssim", "MS-SSIM ↑", 0.9, "0.9000"),
        ("lpips-vgg", "LPIPS (vgg) ↓", 0.2, "0.2000"),
        ("rfid", "rFID ↓", 1, "1"),
        ("rfid-dino", "rFID (dino) ↓", 12.345, "12.35"),
        ("kid", "KID ↓", 0.0010504, "0.001050"),
        ("fwd", "FWD ↓", 1234.4, "1234"),
        ("fwd", "FWD ↓", math.inf, "∞"),
        ("psnrx", "psnrx ↓", math.nan, "not a number"),
        ("unheard", "unheard ↓", None, "-"),
    ],
)
def test_metrics(metric: str, header: str, value: Any, text: str) -> None:
    assert metric_header(metric) == header
    assert metric_value(metric, value) == text
    assert higher_is_better(metric) == ("↑" in header)


def test_numbers() -> None:
    assert [number(value) for value in (1038308, 0.000012345, -math.inf, 2.0)] == ["1,038,308", "1.234e-05", "-∞", "2"]
    assert aligned([-0.0142, 1.5, math.nan]) == ["-0.014", "1.500", "not a number"]
    assert aligned([0, 0.0]) == ["0", "0"]
    assert aligned([1e-9, -2e-9]) == ["0.000000", "-0.000000"]
    assert aligned([123456.0, 1.0]) == ["123456", "1"]


def test_nothing_of_a_json_value_is_left_out() -> None:
    assert anything({"ä": [1, None, True]}) == '{"ä": [1, null, true]}'
    assert flatten({"a": {"b": {"c": 1}, "d": {}}, "e": None}) == {"a.b.c": "1", "a.d": "{}", "e": "-"}


def test_visible_texts_are_utf8_without_control_characters() -> None:
    name = b"caf\xe9 \x00\x1b[2J.png".decode("utf-8", "surrogateescape")  # as Python reads such a file's name
    assert visible(name) == "caf\\udce9 \ufffd\ufffd[2J.png"
    assert visible("日本 é\n\t🙂") == "日本 é\n\t🙂"


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "*a*",
        "__a__",
        "`a`",
        "[a](b)",
        "![a](b)",
        "<script>x</script>",
        "a & b &amp;",
        r"\| \\",
        "snake_case_name",
        "_a_",
    ],
)
def test_a_cell_of_markdown_means_itself(text: str) -> None:
    """Python-Markdown turns it back into the text."""
    table = f"| head |\n| --- |\n| {markdown_cell(text)} |"
    page = markdown.markdown(table, extensions=["tables"])
    cell = page.partition("<td>")[2].partition("</td>")[0]
    assert html.unescape(cell) == text
    assert "<" not in cell


def test_a_cell_of_markdown_is_one_line() -> None:
    assert markdown_cell("a\nb\r\n  c\x00") == "a b c\ufffd"
