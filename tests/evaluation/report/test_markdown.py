"""Does results.md have every number and choice, and can no name break out of it?"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litevae.evaluation.report import write_markdown

from .measured import measured_details

Made = Callable[..., tuple[Path, dict[str, Any]]]
markdown = pytest.importorskip("markdown")  # tensorboard brings it


def rendered(folder: Path) -> str:
    return markdown.markdown((folder / "results.md").read_text(encoding="utf-8"), extensions=["tables"])


def test_the_whole_page(make_results: Made) -> None:
    folder, results = make_results()
    write_markdown(folder / "results.md", results)
    text = (folder / "results.md").read_text(encoding="utf-8")
    assert text.startswith(
        "# S on photographs\n"
        "\n"
        "| size | images | PSNR [dB] ↑ | SSIM ↑ | rFID ↓ | FWD ↓ |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 16 | 6 | 20.12 | 0.6250 | 8.50 | 3.250 |\n"
        "| 32 | 6 | 20.12 | 0.6250 | 8.50 | 3.250 |\n"
        "\n"
        "Measured 2026-11-27. Arrows point to the better values.\n"
    )
    page = rendered(folder)
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", page)]
    rows = {"crop": "centre", "encoder_parameters": "1,038,308", "machine.cpu": "a CPU", "skipped.unreadable": "1"}
    for key, value in rows.items():
        assert cells[cells.index(key) + 1] == value
    assert "<li>rfid: 6 images are few (at 16, 32)</li>" in page
    assert "<li>KID: needs inception.pth from https://example.org/weights</li>" in page
    assert "<pre><code>python -m litevae.evaluate runs/S 'my photographs'\n</code></pre>" in page


def test_details_have_a_column_for_each_size(make_results: Made) -> None:
    folder, results = make_results()
    smaller, larger = results["sizes"]["16"], results["sizes"]["32"]
    larger["details"] = measured_details(seed=3)
    write_markdown(folder / "results.md", results)
    text = (folder / "results.md").read_text(encoding="utf-8")
    stds, errors = (
        [f"{size['details'][entry][key]:.4g}" for size in (smaller, larger)]
        for entry, key in (("statistics", "std"), ("spectrum", "kl"))
    )
    assert f"| Std | {' | '.join(stds)} |" in text
    assert f"| KL(images \\|\\| latents) \\[nats] | {' | '.join(errors)} |" in text
    relative = [f"{size['details']['equivariance']['scale']['relative']:#.4g}" for size in (smaller, larger)]
    assert f"| Scale, relative error | {' | '.join(relative)} |" in text
    assert "| sigma | 16 | 32 | Zero | SD-VAE, paper | LiteVAE, paper |" in text
    assert re.search(r"\| 500 \|.* ± .*\| 0\.44 ± 0\.02 \| 0\.28 ± 0\.01 \|", text)


def test_no_text_breaks_out(make_results: Made) -> None:
    folder, results = make_results()
    hostile = "<script>alert(1)</script>|\n\n# heading `code` \udce9"
    results["model"]["label"] = results["data"]["name"] = results["unavailable"]["kid"] = hostile
    results["protocol"][hostile] = hostile
    results["sizes"]["16"]["warnings"] = [hostile]
    results["sizes"]["16"]["details"] = {hostile: {hostile: hostile}}
    results["command"] = ["python", "```\n</code><script>"]
    write_markdown(folder / "results.md", results)
    page = rendered(folder)
    assert "<script>" not in page
    assert page.count("<h1>") == 1
    assert page.count("<table>") == 10  # metrics, four known details, the hostile one, protocol, model, data, versions


def test_bad_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"results\.json: format must be 1, got None"):
        write_markdown(tmp_path / "results.md", {})
    assert list(tmp_path.iterdir()) == []
