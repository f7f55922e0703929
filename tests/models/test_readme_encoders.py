"""Are the encoders in the README's table as large as it says?"""

import re
from pathlib import Path

import pytest
import torch

from litevae.cost import multiply_accumulates, parameter_count
from litevae.models.encoder import build_encoder
from litevae.runs.recipes import load_config
from litevae.training.config import RunConfig

README = Path(__file__).parents[2] / "README.md"
ROW = re.compile(r"^\| [^|]+ \| (`model=[\w-]+`)? ?\| ([\d,]+) \| ([\d.]+) \| (\d+)x\4x(\d+) \|", re.MULTILINE)
ROWS = ROW.findall(README.read_text(encoding="utf-8"))


def test_the_table_has_every_encoder() -> None:
    assert len(ROWS) == 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0] or "B")
def test_parameters_arithmetic_and_latent(row: tuple[str, str, str, str, str]) -> None:
    override, parameters, gmac, side, channels = row
    words = [override.strip("`")] if override else []
    architecture = load_config(RunConfig, "imagenet128", ["data.path=unread", *words]).model.architecture
    with torch.device("meta"), torch.inference_mode():
        encoder = build_encoder(architecture).eval()
        macs = multiply_accumulates(encoder, torch.empty(1, 3, 256, 256))
    assert (f"{parameter_count(encoder):,}", f"{macs / 1e9:.2f}") == (parameters, gmac)
    assert (256 // architecture.downsampling, architecture.latent_channels) == (int(side), int(channels))
