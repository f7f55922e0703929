"""Does Figure 7 show the ratios of the metrics?"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litevae.evaluation.gradient_ratio import _gradient_ratio, save_gradient_ratio

RUNS: dict[str, list[dict[str, Any]]] = {
    "constant": [
        {"kind": "train", "step": 10, "loss": {}},
        {"kind": "train", "step": 20, "gradient_ratio": {"adversarial": 3.0}},
        {"kind": "evaluation", "step": 20, "psnr": 20.0},
        {"kind": "train", "step": 30, "gradient_ratio": {"adversarial": None}},
        {"kind": "train", "step": 40, "gradient_ratio": {"adversarial": 5.0}},
    ],
    "adaptive": [{"kind": "train", "step": 10, "gradient_ratio": {"adversarial": 2e3}}],
}


def test_curves_are_the_measured_ratios_on_a_log_axis(tmp_path: Path) -> None:
    (axes,) = _gradient_ratio(RUNS).axes
    assert axes.get_yscale() == "log"
    drawn = [np.array(line.get_xydata()).tolist() for line in axes.lines]
    assert drawn == [[[20, 3], [40, 5]], [[10, 2000]]]
    assert {text.get_text() for text in axes.texts} == {"constant 5", "adaptive 2e+03"}
    save_gradient_ratio(tmp_path / "ratio.png", RUNS)
    assert Image.open(tmp_path / "ratio.png").width == 975


def test_a_run_without_ratios_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"runs\['a'\] must hold lines with gradient_ratio, got 0; train with train"):
        save_gradient_ratio(tmp_path / "ratio.png", {**RUNS, "a": RUNS["constant"][:1]})
    assert not (tmp_path / "ratio.png").exists()
