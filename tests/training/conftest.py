"""What do the training tests share? A tiny model, a folder of images, and a run of the command line."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litevae import train

from .. import children

# Overrides that make a run take a second: the smallest LiteVAE, few and small crops.
TINY = [
    "model.size=S",
    "model.extraction_channels=4",
    "model.extraction_multipliers=[1]",
    "model.aggregation_channels=4",
    "model.aggregation_multipliers=[1]",
    "model.block_out_channels=[4,4,4,4]",
    "model.layers_per_block=1",
    "data.crop_size=16",
    "data.evaluation_size=32",
    "data.workers=0",
    "train.steps=6",
    "train.batch_size=2",
    "train.learning_rate=0.001",
    "train.log_every=2",
    "train.evaluate_every=4",
    "train.checkpoint_every=2",
    "train.device=cpu",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and lose much on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def default_signals() -> Iterator[None]:
    with children.default_signals():
        yield


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five images of soft random colours."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(5):
        colours = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        colours.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def recipe(tmp_path: Path, photos: Path) -> Path:
    """A yaml file that trains the tiny model on the folder."""
    from omegaconf import OmegaConf

    path = tmp_path / "tiny.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.from_dotlist([*TINY, f"data.path={photos}"])))
    return path


@pytest.fixture
def run(recipe: Path, tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """run("name", *overrides) -> (exit code, run folder)."""

    def start(name: str, *overrides: str) -> tuple[int, Path]:
        folder = tmp_path / name
        return train.main([str(recipe), f"run.dir={folder}", *overrides]), folder

    return start
