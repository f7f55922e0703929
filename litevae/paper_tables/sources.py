"""Files with measured numbers: an evaluation's results.json, a run's metrics.jsonl, a benchmark's table3_encoders."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from litevae.cost import parameter_count
from litevae.evaluation.autoencoders import aggregation_parameters
from litevae.evaluation.report import read_results
from litevae.runs.config import ConfigError
from litevae.runs.run_folder import RunFolder
from litevae.training.config import ModelConfig, RunConfig
from litevae.training.networks import build_autoencoder
from litevae_kernels.checks import wrong_value

RESULTS, METRICS, TABLE_3 = "results.json", "metrics.jsonl", "table3_encoders-*.json"
WAY_OUT = f"give a {RESULTS} of litevae.evaluate, a run, a {TABLE_3} of the benchmarks, or a folder above them"


@dataclass(frozen=True)
class Source:
    """One model as it was measured, on one set of images under one protocol."""

    path: Path
    label: str
    """The model's, which fills a row where it equals the row's id."""
    model: Mapping[str, Any]
    """As results.json has it: class, encoder_parameters, aggregation_parameters, decoder_parameters, latent_channels;
    None or no key where it is not known."""
    data: str
    protocol: str
    sizes: Mapping[int, tuple[int, Mapping[str, Any]]]
    """Side in pixels -> number of images, values by `Column.key`."""


def read_json(path: Path) -> Any:
    """A file's JSON; a ValueError names a file that has none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise wrong_value(str(path), "be JSON", str(error), "write it again") from None


def files_below(path: Path, patterns: Sequence[str]) -> list[Path]:
    """Files of these names: `path` itself, or all below the folder.

    Raises:
        ValueError: there is none.
    """
    folder = path.expanduser()
    found = [file for name in patterns for file in ([folder] if folder.match(name) else sorted(folder.rglob(name)))]
    found = [file for file in found if file.is_file()]
    if not found:
        raise wrong_value("--results", f"lead to {' or '.join(patterns)}", str(path), WAY_OUT)
    return found


def from_results(path: Path) -> Source:
    """An evaluation by `python -m litevae.evaluate`."""
    results = read_results(path)
    model, protocol = results["model"], results["protocol"]
    sizes = {int(side): (size["images"], _values(size, model)) for side, size in results["sizes"].items()}
    how = ", ".join(protocol[key] for key in ("name", "latent") if key in protocol)
    return Source(path, model["label"], model, results["data"]["name"], how, sizes)


def _values(size: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a column may show, by its key."""
    rows = size.get("details", {}).get("mmd", {}).get("rows", [])
    spread = {f"mmd-{row['sigma']:g}": f"{row['mmd']:.2f}±{row['mmd_plus_minus']:.2f}" for row in rows}
    return {**_millions(model), **size["metrics"], **spread}


def _millions(model: Mapping[str, Any]) -> dict[str, float]:
    counts = {name: model.get(name) for name in ("encoder_parameters", "aggregation_parameters")}
    return {f"{name}_m": count / 1e6 for name, count in counts.items() if count is not None}


def from_run(path: Path) -> Source:
    """A run's last look at its own held-out images, from its metrics.jsonl; its trunk of LPIPS is VGG16."""
    folder = RunFolder(path.parent)
    try:
        config = folder.read_config(RunConfig)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    evaluations, side = folder.evaluations(), config.data.evaluation_size
    sizes = {}
    model = description(config.model)
    if evaluations and side is not None:  # photographs at their own sizes fill no row
        last = evaluations[-1]
        names = {"psnr": "psnr", "ssim": "ssim", "lpips": "lpips-vgg", "rfid": "rfid", "fwd": "fwd"}
        values = {key: last[name] for name, key in names.items() if name in last}
        sizes = {side: (len(last["images"]), {**_millions(model), **values})}
    step = f"step {evaluations[-1]['step']:,}" if evaluations else "no evaluation"
    data = f"held out of {config.data.path or config.data.source}"
    return Source(folder.path, folder.path.resolve().name, model, data, f"the run's own, {step}", sizes)


def description(config: ModelConfig) -> dict[str, Any]:
    """The model of a config as results.json describes one."""
    with torch.device("meta"):
        model = build_autoencoder(config)
    return {
        "class": type(model).__name__ if config.kind == "litevae" else "AutoencoderKL",
        "encoder_parameters": parameter_count(model.encoder, model.quant_conv),
        **aggregation_parameters(model),
        "decoder_parameters": parameter_count(model.decoder, model.post_quant_conv),
        "latent_channels": config.architecture.latent_channels,
    }


def table_3_rows(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(encoder, precision, row) of a benchmark's table, for the rows that the paper has: eager, in its default layout.

    The memory is a GPU's, in MB; what is counted on meta tensors without one is another quantity.
    """
    for row in read_json(path)["rows"]:
        name, _, precision = row["row"].partition(", ")
        if ", " not in precision:
            mib = row.get("cuda_mib")
            yield name, precision, {**row, "cuda_mb": mib and mib * 2**20 / 1e6}


def is_number(value: Any) -> bool:
    """A finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
