"""Does the table at the end of a run tell what was measured, also when held-out images changed on the way?"""

from pathlib import Path

import torch

from litevae.evaluation.held_out import Evaluation, Measured
from litevae.training.report import AutoencoderFolder, quality_table


def evaluation(**psnr: float) -> Evaluation:
    image = torch.zeros(3, 16, 16)
    return Evaluation([Measured(f"{name}.png", image, image, None, value, 0.5) for name, value in psnr.items()])


def test_an_image_that_was_not_measured_before_training_has_a_dash(tmp_path: Path) -> None:
    folder = AutoencoderFolder(tmp_path)
    folder.append_metrics(evaluation(one=10.0).as_metrics(0))
    lines = quality_table(folder, evaluation(one=20.0, two=30.0), evaluation(one=25.0, two=26.0)).splitlines()
    assert lines[2].split() == ["one.png", "10.00", "dB", "0.500", "20.00", "dB", "0.500", "25.00", "dB", "0.500"]
    assert lines[3].split() == ["two.png", "-", "-", "30.00", "dB", "0.500", "26.00", "dB", "0.500"]
    assert lines[4].split()[:3] == ["mean", "-", "-"]
    assert "0.50 dB below" in lines[5]


def test_every_image_has_a_line(tmp_path: Path) -> None:
    folder = AutoencoderFolder(tmp_path)
    many = evaluation(**{f"image{number}": float(number) for number in range(20)})
    folder.append_metrics(many.as_metrics(0))
    names = [line.split()[0] for line in quality_table(folder, many, many).splitlines()[2:-2]]
    assert names == [f"image{number}.png" for number in range(20)]
