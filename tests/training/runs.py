"""What do the tests look at in a run's folder? Its checkpoints and its log."""

import json
from collections.abc import Iterable
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


def assert_same_training(first: dict[str, Any], second: dict[str, Any], start: dict[str, Any]) -> None:
    """The same gradients, summed in another order: Adam's moments, and the steps of the weights since `start`.

    Float32 gradients then differ by about 50 units of roundoff of the largest, 3e-6. Adam divides each by its own
    size: where the exact gradient is 0 (a bias before a normalization), the step is the roundoff's sign, on any CPU
    another. So weights are compared where the gradient is above 1e-5 of the largest.
    """
    for name in ("exp_avg", "exp_avg_sq"):
        assert (_moment(first, name) - _moment(second, name)).norm() < 1e-4 * _moment(second, name).norm(), name
    size = _moment(second, "exp_avg_sq").sqrt()
    is_above_roundoff = size > 1e-5 * size.max()
    assert is_above_roundoff.double().mean() > 0.9
    ours, theirs, begin = (_flat(state["model"].values())[is_above_roundoff] for state in (first, second, start))
    assert (ours - theirs).norm() < 1e-4 * (theirs - begin).norm()


def _moment(state: dict[str, Any], name: str) -> torch.Tensor:
    return _flat(moments[name] for moments in state["optimizers"][0]["state"].values())


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
