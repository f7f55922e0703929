"""Invented results.json files and runs, with numbers that no model gave."""

import json
from pathlib import Path
from typing import Any

from litevae.runs.recipes import load_config
from litevae.runs.run_folder import RunFolder
from litevae.training.config import RunConfig

B_12 = {"class": "LiteVAE", "encoder_parameters": 6_757_876, "decoder_parameters": 49_490_179, "latent_channels": 12}
B_4 = {"class": "LiteVAE", "encoder_parameters": 6_753_252, "decoder_parameters": 49_490_179, "latent_channels": 4}
VAE_12 = {"class": "AutoencoderKL", "encoder_parameters": 34_237_936, "decoder_parameters": 1, "latent_channels": 12}
METRICS = {"psnr": 21.987, "ssim": 0.6543, "lpips-vgg": 0.3217, "rfid": 99.876, "lpips-alex": 0.111}


def results(label: str, model: dict[str, Any] | None = None, **sizes: dict[str, Any]) -> dict[str, Any]:
    """A results.json; `sizes`: s128={...} is a size's metrics."""
    sizes = sizes or {"s128": METRICS}
    return {
        "format": 1,
        "model": {"name": f"runs/{label}", "label": label, **(model or B_12)},
        "data": {"name": "photographs", "images": 2, "hash": "sha256:01"},
        "protocol": {"name": "ldm", "latent": "mode"},
        "sizes": {key[1:]: {"images": 2, "metrics": metrics} for key, metrics in sizes.items()},
        "unavailable": {},
        "gallery": [],
        "versions": {},
        "command": ["litevae.evaluate", f"runs/{label}", "photographs"],
        "date": "2026-11-27",
    }


def write(folder: Path, document: dict[str, Any]) -> Path:
    """Into a new folder's results.json."""
    folder.mkdir(parents=True)
    path = folder / "results.json"
    path.write_text(json.dumps(document))
    return path


def write_run(folder: Path, recipe: str, overrides: list[str], lines: list[dict[str, Any]]) -> Path:
    """A run's config.yaml and metrics.jsonl."""
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.write_config(load_config(RunConfig, recipe, [*overrides, f"run.dir={folder}"]))
    for line in lines:
        run.append_metrics(line)
    return folder
