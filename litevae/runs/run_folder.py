"""What a run leaves on disk: the run folder.

    config.yaml            everything the run was told; `python -m litevae.train config.yaml run.dir=...` repeats it
    versions.json          Python, torch, litevae, commit, machine, seed, and the command line
    metrics.jsonl          one JSON object a line: "kind" is "train", "evaluation", "resume", "end" (the results of this
                           step are written), or a kind of training's own
    tensorboard/           the same for TensorBoard, with pictures
    checkpoints/           step-XXXXXX.pt, the newest few and the best
    model/                 what `from_pretrained` reads; of the averaged weights, if the run has them

A kind of training adds its figures (the autoencoder's: litevae/training/report.py).
"""

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from omegaconf import DictConfig

import litevae
from litevae.runs.config import Config, ConfigError
from litevae.runs.recipes import build_config, read_yaml, sections_of, to_yaml
from litevae_kernels.files import check_folder, unused, write_text
from litevae_kernels.machine import commit, processor, version

VERSIONS = ("torch", "torchvision", "torch-fidelity", "lpips", "accelerate", "diffusers", "numpy", "pillow")
C = TypeVar("C", bound=Config)


class RunFolder:
    """The files of one run, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.versions = path / "versions.json"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"

    def check_free(self, config: Config) -> None:
        """Refuse a place that holds a run, or any file that a run would write over.

        A run with the same config that was killed before its first checkpoint may start again.
        """
        self.check_writable("run.dir")
        taken = [path for path in vars(self).values() if path != self.path and path.exists()]
        if taken and not self._is_beginning(taken, config):
            names = ", ".join(path.name for path in taken)
            raise ConfigError(
                f"{self.path} already holds a run ({names}); continue it with --resume {self.path}, "
                f"or start another elsewhere with run.dir={unused(self.path)}"
            )

    def check_writable(self, argument: str) -> None:
        """Refuse a place where nothing can be written, before hours of work are lost there."""
        try:
            check_folder(argument, self.path)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _is_beginning(self, taken: Sequence[Path], config: Config) -> bool:
        """Whether all that is there is this config, without a checkpoint."""
        if not set(taken) <= {self.config, self.versions, self.checkpoints}:
            return False
        if self.checkpoints.exists() and any(self.checkpoints.glob("step-*.pt")):
            return False
        try:
            return not self.config.exists() or self.read_config(type(config)) == config
        except ConfigError:
            return False

    def create(self, config: Config, command: Sequence[str]) -> None:
        """Make the folder, after `check_free`, with config.yaml and versions.json."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run.dir {self.path} cannot be created: {error.strerror}") from None
        self.write_config(config)
        write_text(self.versions, json.dumps(versions(config.train.seed, command), indent=2) + "\n")

    def write_config(self, config: Config) -> None:
        """config.yaml, complete: it repeats the run without the recipe that it came from."""
        write_text(self.config, to_yaml(config))

    def read_config(self, schema: type[C], overrides: Sequence[str] = ()) -> C:
        """The config a run is resumed with; `schema`: the dataclass of its sections.

        Raises:
            ConfigError: no run here, an override that a run cannot have or that would make it another run.
        """
        if not self.config.is_file():
            raise ConfigError(f"--resume must name a run folder, got {self.path}, which has no config.yaml")
        values = read_yaml(self.config, sections_of(schema))
        _fill_in(values, schema)
        before, after = (build_config(schema, values, new, str(self.config)) for new in ((), overrides))
        for section in schema.fixed_sections:
            old = vars(getattr(before, section))
            for key, value in vars(getattr(after, section)).items():
                if value != old[key]:
                    raise ConfigError(
                        f"{section}.{key} must stay {old[key]} when a run is resumed, got {value}; "
                        f"train another model with {self.config} {section}.{key}={value} run.dir={unused(self.path)}"
                    )
        return after

    def append_metrics(self, line: dict[str, Any]) -> None:
        """One more line; an OSError names the file."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OSError(error.errno, f"cannot write: {error.strerror}", str(self.metrics)) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines; a last line that a crash cut off is left out."""
        if not self.metrics.exists():
            return []
        lines = []
        for text in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue
        return lines

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of evaluations; the first is of the model before training."""
        return [line for line in self.read_metrics() if line["kind"] == "evaluation"]

    def has_results_of(self, step: int) -> bool:
        """Whether model/ and the figures are those of this step, the newest; older versions did not write which."""
        ends = [line["step"] for line in self.read_metrics() if line["kind"] == "end"]
        return self.model.exists() and (not ends or ends[-1] == step)

    def forget_after(self, step: int) -> None:
        """Drop the lines after a checkpoint's step: those steps are about to be run again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def _fill_in(values: DictConfig, schema: type[Config]) -> None:
    """What a run folder from before a key was there means without it: the "older_runs" in the metadata of its field."""
    for section in dataclasses.fields(cast(Any, schema)):
        values.setdefault(section.name, {})
        content = values[section.name]
        for key in dataclasses.fields(cast(Any, section.type)):
            if "older_runs" in key.metadata and isinstance(content, DictConfig):  # else build_config refuses it
                content.setdefault(key.name, key.metadata["older_runs"])


def versions(seed: int, command: Sequence[str]) -> dict[str, Any]:
    """What a result depends on beside the config: library versions and the machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
        "seed": seed,
        "litevae": litevae.__version__,
        "commit": commit(),
        "python": sys.version.split()[0],
        **{name: version(name) for name in VERSIONS},
        "machine": {
            "system": platform.platform(),
            "processor": f"{os.cpu_count()} x {processor()}",
            "threads": torch.get_num_threads(),
            "gpu": gpu,
        },
    }
