"""What do the tests of evaluation share? A tiny model, crops of photographs, and what of results must not differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from litevae import LiteVAE

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
ALL_OWN = "psnr,ssim,fwd,mmd,spectrum,equivariance,statistics"
"""The metrics that need no network."""


def save_model(folder: Path, seed: int = 0, **arguments: Any) -> Path:
    """A LiteVAE in eval mode whose decoder does something: untrained ones are nearly gray."""
    torch.manual_seed(seed)
    parts: dict[str, Any] = {f"{part}_channels": 4 for part in ("extraction", "aggregation")}
    parts |= {f"{part}_multipliers": (1,) for part in ("extraction", "aggregation")}
    parts |= {"block_out_channels": (16,) * 4, "layers_per_block": 1, **arguments}
    LiteVAE.from_preset("S", **parts).save_pretrained(folder)
    return folder


def save_crops(folder: Path, count: int) -> Path:
    """Crops of 100x96 of photographs, none like another."""
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        photograph = getattr(data, PHOTOGRAPHS[index % len(PHOTOGRAPHS)])()
        left, top = 20 + 31 * index % 180, 20 + 17 * index % 170
        Image.fromarray(photograph[top : top + 96, left : left + 100]).save(folder / f"{index:03d}.png")
    return folder


def results_in(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def numbers_in(folder: Path) -> dict[str, Any]:
    """All that must be the same when an evaluation is repeated."""
    results = results_in(folder)
    for measured in results["sizes"].values():
        del measured["seconds"]
    for name in ("versions", "command", "date"):
        del results[name]
    return {**results, "scores": (folder / "scores.csv").read_text()}
