"""What do the tests look at in a run's folder? Its checkpoints and its log."""

import json
from pathlib import Path
from typing import Any

import torch

ADVERSARIAL = (
    "loss.adversarial_weight=0.1",
    "loss.adversarial_start=2",
    "discriminator.channels=2",
    "discriminator.resolution=16",
    "train.ema_decay=0.5",
)


def checkpoint(folder: Path, step: int) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"step-{step:06d}.pt", weights_only=True)


def logged(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Lines of one kind, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key != "images_per_second"}
        for line in lines
        if line["kind"] == kind
    ]


def assert_same_state(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Bit for bit: parameters, their average, Adam's moments, the losses since the last log line."""
    torch.testing.assert_close(first, second, rtol=0, atol=0)
