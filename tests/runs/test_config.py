"""Does a run take the general keys that it should, in the words of older runs too?"""

from pathlib import Path

import pytest

from litevae.runs.config import LoopConfig
from litevae.runs.recipes import load_config
from litevae.training.config import RunConfig


def test_learning_rate_schedule() -> None:
    train = LoopConfig(steps=100, learning_rate=2.0, warmup_steps=4, schedule="cosine")
    assert [train.schedule_of(step) for step in (0, 1)] == pytest.approx([0.25, 0.5], rel=1e-3)
    assert train.schedule_of(50) == pytest.approx(0.5)
    assert train.schedule_of(100) == pytest.approx(0.0)
    assert LoopConfig(learning_rate=2.0).schedule_of(150_000) == 1.0


@pytest.mark.parametrize("written", ["no", "'no'", "false", "float32"])
def test_older_names_of_float32(tmp_path: Path, written: str) -> None:
    """`no`, which yaml reads as false, until it was called by its dtype."""
    path = tmp_path / "config.yaml"
    path.write_text(f"train:\n  mixed_precision: {written}\n")
    train = load_config(RunConfig, str(path)).train
    assert (train.mixed_precision, train.autocast_dtype) == ("float32", None)
