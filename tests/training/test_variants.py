"""Does every encoder train, and does a dry run say what it costs?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from litevae import load_model, train
from litevae.cost import parameter_count
from litevae.models.vit import TransformerBlock
from litevae.runs.recipes import load_config
from litevae.training.config import RunConfig
from litevae.training.estimate import estimate
from litevae.training.networks import build_autoencoder

from ..models.variants import NARROW, VARIANTS
from .runs import ADVERSARIAL, assert_same_state, checkpoint, logged

Run = Callable[..., tuple[int, Path]]
SMALL = ("nafnet_width", "nafnet_blocks", "vit_width", "vit_depth", "vit_heads")
BASELINES = {"f4": "4x down, bicubic up", "f16": "16x down, bicubic up"}
WITHOUT_WEIGHTS = [name for name in VARIANTS if name.startswith("dwt")]


def overrides(name: str, *more: str) -> list[str]:
    model = {**{key: NARROW[key] for key in SMALL}, **VARIANTS[name]}
    words = [f"model.{key}={list(value) if isinstance(value, tuple) else value}" for key, value in model.items()]
    return [*words, *(["loss.kl_weight=0"] if name in WITHOUT_WEIGHTS else []), *more]


def network(key: str) -> str:
    """The network of a parameter: decoder, encoder.aggregation, encoder.extraction.1, encoder.downsample.0 ..."""
    parts = key.split(".")
    depth = 1 if parts[0] == "decoder" else 3 if parts[1] in ("extraction", "downsample") else 2
    return ".".join(parts[:depth])


@pytest.mark.parametrize(
    "name",
    [name if name in ("vit", "f16", "dwt-2") else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS],
)
def test_two_steps_change_every_network_and_are_measured(
    run: Run, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all that a run may have: a discriminator, an average of the weights, the ratio of gradients."""
    words = overrides(name, *ADVERSARIAL, "loss.adversarial_start=0", "train.gradient_ratio_every=1")
    code, folder = run("run", *words, "train.steps=2", "train.checkpoint_every=1", "train.log_every=1")
    assert code == 0
    first, last = checkpoint(folder, 1)["model"], checkpoint(folder, 2)["model"]
    moved, still = ({network(key) for key in first if torch.equal(first[key], last[key]) == same} for same in (0, 1))
    assert {part for part in moved if part.startswith("decoder")} == {"decoder"}
    assert still <= moved  # no network is dead
    lines = logged(folder, "train")
    assert all(line["loss"]["total"] > 0 and line["gradient_ratio"]["adversarial"] > 0 for line in lines)
    assert ("kl" in lines[-1]["loss"]) == (name not in WITHOUT_WEIGHTS)
    assert BASELINES.get(name, "8x down, bicubic up") in capsys.readouterr().out
    kept = load_model(folder)
    (latents,) = logged(folder, "latents")
    assert kept.config.scaling_factor == pytest.approx(1 / latents["std"])
    assert kept.downsampling == {"f4": 4, "f16": 16}.get(name, 8)


def macs_by_hand(encoder: nn.Module, image: Tensor) -> int:
    """Of one image: a convolution's or a matrix's weights at every place, and both products of attention."""
    counts = []

    def count(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, TransformerBlock):
            positions, channels = output.shape[1:]
            counts.append(2 * positions**2 * channels)
        elif hasattr(module, "weight") and module.weight.dim() > 1:
            counts.append(output.numel() * module.weight[0].numel())

    for module in encoder.modules():
        module.register_forward_hook(count)
    encoder(image)
    return sum(counts)


@pytest.mark.parametrize("name", VARIANTS)
def test_dry_run_counts_parameters_and_arithmetic(recipe: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = overrides(name, "data.crop_size=128")
    assert train.main([str(recipe), *words, "--dry-run"]) == 0
    found = dict(re.findall(r"^(encoder|decoder) +(.+)$", capsys.readouterr().out, re.MULTILINE))
    config = load_config(RunConfig, str(recipe), words)
    model = build_autoencoder(config.model)
    macs = macs_by_hand(model.encoder, torch.zeros(1, 3, 128, 128))
    assert found["encoder"].split() == [f"{parameter_count(model.encoder):,}", f"{macs / 1e9:.2f}"]
    assert found["decoder"].split()[0] == f"{parameter_count(model.decoder):,}"
    needed = estimate(config, model, None, None, 2)
    assert needed.encoder_macs == macs
    assert (macs == 0) == (name in WITHOUT_WEIGHTS)
    assert needed.optimizer_bytes == 2 * 4 * parameter_count(model)


@pytest.mark.parametrize("name", ["dwt", pytest.param("nafnet", marks=pytest.mark.slow)])
def test_resumed_run_equals_unbroken_run(run: Run, name: str) -> None:
    _, unbroken = run("unbroken", *overrides(name, "train.steps=4", "train.ema_decay=0.5"))
    code, broken = run("broken", *overrides(name, "train.steps=2", "train.ema_decay=0.5"))
    assert code == 0
    assert train.main(["--resume", str(broken), "train.steps=4"]) == 0
    assert_same_state(checkpoint(unbroken, 4), checkpoint(broken, 4))
    state = checkpoint(broken, 4)
    trained = [key for key in state["model"] if name not in WITHOUT_WEIGHTS or key.startswith("decoder.")]
    assert len(state["optimizers"][0]["state"]) == len(trained) == len(state["model"])


def test_a_run_starts_from_one_with_the_same_encoder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, first = run("first", *overrides("dwt", "train.steps=2"))
    start = f"train.start_from={first}"
    code, second = run("second", *overrides("dwt", "train.steps=2", "train.learning_rate=1e-30", start))
    assert code == 0
    before, after = checkpoint(first, 2)["model"], checkpoint(second, 2)["model"]
    assert_same_state(before, after)
    code, _ = run("third", "train.steps=2", start)
    assert code == 2
    assert "encoder." in capsys.readouterr().err
