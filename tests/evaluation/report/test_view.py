"""Is the page one valid file with everything in it, whatever its texts are, and does its script run in a browser?"""

import base64
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litevae.evaluation.report import write_report

Results = dict[str, Any]
Made = Callable[..., tuple[Path, Results]]
Written = Callable[..., "Page"]

VOID = {"meta", "img", "input"}
SVG = {"line", "path", "rect", "circle"}
TEMPLATES = Path(__file__).parents[3] / "litevae" / "evaluation" / "report" / "templates"
HOSTILE = "<script>alert('x')</script>\"&amp;' \udce9\x00{{ 7 * 7 }}"
SHOWN = "<script>alert('x')</script>\"&amp;' \\udce9\ufffd{{ 7 * 7 }}"


class Page(HTMLParser):
    """The elements of a page; fails on tags that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.markup = text
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute comes twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG  # HTML has no other tags that close themselves
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def write(tmp_path: Path) -> Written:
    def written(*results: tuple[Path, Results]) -> Page:
        write_report(tmp_path / "report.html", results)
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return written


def decoded(uri: str | None) -> np.ndarray[Any, Any]:
    kind, _, content = (uri or "").partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content, validate=True))).convert("RGB"))


def test_nothing_is_loaded_from_elsewhere(make_results: Made, write: Written) -> None:
    page = write(make_results("A"), make_results("B", seed=1))
    assert page.markup.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        for name in {"src", "href", "srcset", "action", "poster", "data", "xlink:href"} & attributes.keys():
            assert str(attributes[name]).startswith("data:image/webp;base64," if tag == "img" else "#")
    assert page.all("script") == [{}]
    assert re.findall(r"@import|url\(|https?://(?!example\.org/weights)", page.markup) == []
    [policy] = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; img-src data:;")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link["href"])[1:] for link in page.all("a")} <= set(ids)


def test_an_image_comes_once_with_a_slider_for_each_model(make_results: Made, write: Written) -> None:
    one, other = make_results("A"), make_results("B", seed=1)
    page = write(one, other)
    assert len(page.all("article")) == 6  # three of each of the two sizes
    sliders = [slider for slider in page.all("input") if slider["type"] == "range"]
    assert len(sliders) == 12
    assert len({slider["aria-label"] for slider in sliders}) == 3 * 2  # alike at both sizes
    assert len(page.all("img")) == 6 * (1 + 2 * 3)
    assert all(image["alt"] for image in page.all("img"))
    # The largest size first, from the worst to the best; every pixel as it was saved.
    shown = iter(page.all("img"))
    for size in (32, 16):
        for place in range(3):
            entries = [
                [item for item in results["gallery"] if item["size"] == size][place] for _, results in (one, other)
            ]
            files = [one[0] / entries[0]["original"]]
            for (folder, _), entry in zip((one, other), entries, strict=True):
                files += [folder / entry[kind] for kind in ("reconstruction", "error", "latent")]
            for file in files:
                picture = np.asarray(Image.open(file).convert("RGB"))
                image = next(shown)
                np.testing.assert_array_equal(decoded(image["src"]), picture)
                assert (image["height"], image["width"]) == tuple(map(str, picture.shape[:2]))


def test_the_numbers_are_there(make_results: Made, write: Written) -> None:
    page = write(make_results("A"), make_results("B", seed=1))
    assert "A 20.12 0.6250 (best) 8.50 (best) 3.250 (best)" in page.text
    assert "B 21.12 (best) 0.6250 (best) 8.50 (best) 4.250" in page.text
    for part in (
        "A and B",
        "6 images of photographs at 16, 32 pixels · protocol ldm · 2026-11-27",
        "PSNR [dB] ↑ 21.12 B SSIM ↑ 0.6250 A B rFID ↓ 8.50 A B FWD ↓ 3.250 A Best values at 32 x 32 pixels",
        "rfid: 6 images are few (at 16, 32)",
        "KID needs inception.pth from https://example.org/weights",
        "photo-0.png worst by PSNR",
        "Draws of the Gaussian 10",
        "crop centre",
        "encoder_parameters 1,038,308 1,038,308",
        "machine.cpu a CPU",
        "python -m litevae.evaluate runs/B 'my photographs'",
        "0 25 % of the range or more",
    ):
        assert part in page.text
    charts = [str(chart["aria-label"]) for chart in page.all("svg")]
    assert "PSNR [dB] ↑: A, 16: 20.12; A, 32: 20.12; B, 16: 21.12; B, 32: 21.12" in charts


def test_one_model_at_one_size(make_results: Made, write: Written) -> None:
    page = write(make_results("only", sizes=(16,)))
    assert "(best)" not in page.text
    assert "Over sizes" not in page.text
    assert len(page.all("svg")) == 2  # the spectrum and the correlation
    assert len(page.all("article")) == 3


def test_without_pictures_and_sizes_there_is_still_a_page(make_results: Made, write: Written) -> None:
    folder, results = make_results()
    results |= {"gallery": [], "sizes": {}, "protocol": {}, "unavailable": {}, "command": []}
    page = write((folder, results))
    assert "Gallery" not in page.text
    assert page.all("article") == []


def test_hostile_texts_stay_texts(make_results: Made, write: Written) -> None:
    folder, results = make_results()
    results["model"] = {"label": HOSTILE, HOSTILE: [HOSTILE]}
    results["data"] |= {"name": HOSTILE, "skipped": {HOSTILE: 1}}
    results["protocol"] |= {"name": HOSTILE, HOSTILE: HOSTILE}
    results["unavailable"] = {HOSTILE: HOSTILE}
    results["versions"] = {HOSTILE: {HOSTILE: HOSTILE}}
    results |= {"command": [HOSTILE], "date": HOSTILE}
    for measured in results["sizes"].values():
        measured["metrics"][HOSTILE] = 1.5
        measured["warnings"] = [HOSTILE]
        measured["details"] = {HOSTILE: {HOSTILE: HOSTILE}, "equivariance": {HOSTILE: 2.5},
                               "statistics": {HOSTILE: [1, 2]}, "spectrum": {"radius": [0.5, 1], HOSTILE: 1},
                               "mmd": {"rows": [{"sigma": HOSTILE, "paper": {HOSTILE: HOSTILE}}]}}  # fmt: skip
    for item in results["gallery"]:
        item |= {"name": HOSTILE, "rank": HOSTILE, "by": HOSTILE, "latent": "images/<b>'\"\udce9.png"}
        item["scores"][HOSTILE] = 1.0
    page = write((folder, results))
    assert page.all("script") == [{}]
    assert page.markup.count("<script>") == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count(SHOWN) > 40
    alts = [str(image["alt"]) for image in page.all("img")]
    assert f"original, {SHOWN}" in alts
    assert f"reconstruction by {SHOWN}, {SHOWN}" in alts
    assert "49" not in page.text
    assert "no picture images/<b>'\"\\udce9.png: no such file" in page.text


def test_a_picture_that_is_missing_or_damaged_is_named(make_results: Made, write: Written) -> None:
    folder, results = make_results(sizes=(16,))
    (folder / results["gallery"][0]["original"]).unlink()
    (folder / results["gallery"][1]["error"]).write_bytes(b"\x89PNG\r\n\x1a\nnot one")
    results["gallery"][2] |= {"reconstruction": None, "latent": None}
    page = write((folder, results))
    assert len(page.all("img")) == 3 * 4 - 4
    assert "no picture images/16-0-original.png: no such file" in page.text
    assert "no picture images/16-2-error.png: " in page.text
    assert "no picture not saved" in page.text


def test_another_models_original_stands_in_for_a_missing_one(make_results: Made, write: Written) -> None:
    one, other = make_results("A", sizes=(16,)), make_results("B", sizes=(16,))
    (one[0] / one[1]["gallery"][0]["original"]).unlink()
    assert "no picture" not in write(one, other).text


def test_models_with_other_worst_images_say_whose_they_are(make_results: Made, write: Written) -> None:
    one, other = make_results("A", sizes=(16,)), make_results("B", sizes=(16,))
    other[1]["gallery"][0]["rank"] = "best"
    del other[1]["gallery"][2]
    page = write(one, other)
    assert "photo-0.png worst by PSNR: A best by PSNR: B" in page.text
    assert len(page.all("input")) == 3 + 2


def test_what_cannot_be_shown_is_refused(make_results: Made, tmp_path: Path) -> None:
    one, other = make_results("A"), make_results("B")
    other[1]["protocol"]["crop"] = "random"
    with pytest.raises(ValueError, match=r"protocol.crop must be the same .* 'centre' of A and 'random' of B"):
        write_report(tmp_path / "report.html", [one, other])
    with pytest.raises(ValueError, match="results must have at least one entry, got"):
        write_report(tmp_path / "report.html", [])
    with pytest.raises(ValueError, match="here: format must be 1, got 2"):
        write_report(tmp_path / "report.html", [("here", {"format": 2})])
    assert not (tmp_path / "report.html").exists()


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of "#rrggbb"."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_enough(scheme: int) -> None:
    """WCAG 2 AA: 4.5 for text, 3 for curves."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    colours = {name: luminance(both[scheme]) for name, *both in pairs}

    def contrast(one: str, other: str) -> float:
        low, high = sorted((colours[one], colours[other]))
        return (high + 0.05) / (low + 0.05)

    texts = [(ink, paper) for ink in ("ink", "muted", "accent") for paper in ("page", "card")]
    texts += [("accent", "tint"), ("warn", "warn-tint"), ("ink", "warn-tint")]
    assert {pair: contrast(*pair) for pair in texts if contrast(*pair) < 4.5} == {}
    curves = [(f"s{series}", "card") for series in range(6)]
    assert {pair: contrast(*pair) for pair in curves if contrast(*pair) < 3} == {}


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.mark.skipif(BROWSER is None, reason=f"needs a browser: {', '.join(BROWSERS)}")
def test_the_script_runs_in_a_browser(make_results: Made, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [make_results("A"), make_results("B")])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    moved = page.replace("</script>", """
        const slider = document.querySelectorAll(".item input")[1];
        slider.value = 80;
        slider.dispatchEvent(new Event("input"));
        button.click();
    </script>""")  # fmt: skip
    (tmp_path / "moved.html").write_text(moved, encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
               f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "moved.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []  # errors, and what the policy blocks
    dumped = Page(done.stdout)
    [root] = dumped.all("html")
    assert (root["class"], root["data-theme"]) == ("js", "dark")
    assert ">Light</button>" in dumped.markup
    items = dumped.all("article")
    assert [item["style"] for item in items] == ["--at: 80%;", *["--at: 50%;"] * 5]
    assert [slider["aria-valuetext"] for slider in dumped.all("input")] == [
        *["80 % original"] * 2,
        *["50 % original"] * 10,
    ]
    assert len(dumped.all("img")) == 6 * (1 + 2 * 4)  # the original under every reconstruction
