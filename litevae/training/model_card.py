"""What does a run tell the card of its model: how it was trained, on what, and how good it was?

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [report]
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litevae.evaluation.held_out import Evaluation
from litevae.models.model_facts import Measurement, ModelFacts, public_name
from litevae.runs.run_folder import RunFolder
from litevae.training.config import RunConfig
from litevae.training.networks import Networks
from litevae.training.report import loss_summary, model_name, quality

_SHOWN_VERSIONS = ("torch", "diffusers")


def run_facts(
    config: RunConfig, networks: Networks, folder: RunFolder, images: str, evaluation: Evaluation, baseline: Evaluation
) -> ModelFacts:
    """What the card of a run's model says beside its architecture; no path of this machine is in it.

    Args:
        images: what is trained on, in numbers: "6 photographs".
        evaluation: of the held-out images, by the model that is kept.
        baseline: of the same images, by bicubic interpolation.
    """
    train, data, record = config.train, config.data, _versions(folder)
    name = _data_name(config)
    rows = {
        "Program": " ".join(["`litevae.train`,", "litevae", str(record.get("litevae")), _commit(record)]).strip(),
        "Recipe": _recipe(record.get("command", ())),
        "Model": model_name(config),
        "Data": f"{name}: {images}, crops of {data.crop_size} pixels",
        "Steps": f"{train.steps:,} of {train.batch_size} crops",
        "Losses": loss_summary(config, networks),
        "Optimizer": f"Adam at {train.learning_rate:g}, {train.schedule}, betas {train.betas[0]:g} and "
        f"{train.betas[1]:g}, {train.precision}",
        "Averaged weights": f"decay {train.ema_decay:g}" if train.ema_decay else "",
        "Starts from": public_name(train.start_from) if train.start_from else "",
        "Seed": str(train.seed),
        "Versions": ", ".join(f"{package} {record[package]}" for package in _SHOWN_VERSIONS if package in record),
        "Same images, " + baseline.method: quality(baseline),
    }
    size = "whole" if data.evaluation_size is None else f"{data.evaluation_size}x{data.evaluation_size}"
    means = {**evaluation.means, **evaluation.distances}
    measured = tuple(
        Measurement(f"{name}, held out", evaluation.count, size, metric, value, "litevae.train")
        for metric, value in means.items()
    )
    is_on_hub = data.resolved_source == "dataset" and "/" in name
    return ModelFacts(
        training={what: value for what, value in rows.items() if value},
        measurements=measured,
        datasets=(name,) if is_on_hub else (),
    )


def _versions(folder: RunFolder) -> dict[str, Any]:
    """versions.json, empty where somebody deleted or damaged it."""
    try:
        record = json.loads(folder.versions.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _commit(record: dict[str, Any]) -> str:
    commit = record.get("commit")
    return f"({commit[:10]}{'+changes' if '+' in commit else ''})" if isinstance(commit, str) else ""


def _recipe(command: Sequence[str]) -> str:
    """The recipe's name in the command line that began the run."""
    return next((Path(word).stem for word in command[1:] if not word.startswith("-") and "=" not in word), "")


def _data_name(config: RunConfig) -> str:
    data = config.data
    if data.path is not None:
        return public_name(data.path)
    return {"photographs": "scikit-image's photographs"}.get(data.resolved_source, data.resolved_source)
