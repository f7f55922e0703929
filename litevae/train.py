"""`python -m litevae.train quickstart`: the one command for every kind of training.

The loop is litevae/runs/loop.py. A kind is a config, a `Loop` and a dry run of its own, and a line in `KINDS`. A
recipe, and the config.yaml of a run, say theirs.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from litevae.data import DataError
from litevae.diffusion.dry_run import dry_run as diffusion_dry_run
from litevae.diffusion.trainer import DiffusionTrainer
from litevae.distillation.dry_run import dry_run as distillation_dry_run
from litevae.distillation.trainer import DistillationTrainer
from litevae.loading import load_autoencoder
from litevae.losses.weight_files import WeightsError
from litevae.runs.checkpoint import CheckpointError
from litevae.runs.command_line import parse, plain_warnings
from litevae.runs.config import ConfigError
from litevae.runs.loop import Loop, resume, start
from litevae.runs.progress import BrokenRunError, NonFiniteError
from litevae.runs.recipes import find_recipe, kind_of, load_config
from litevae.training.dry_run import dry_run as autoencoder_dry_run
from litevae.training.trainer import Trainer


class Kind(NamedTuple):
    """What can be trained."""

    loop: type[Loop]
    dry_run: Callable[[Any], int]


DiffusionTrainer.load_autoencoder = DistillationTrainer.load_autoencoder = staticmethod(load_autoencoder)
KINDS = {
    "autoencoder": Kind(Trainer, autoencoder_dry_run),
    "diffusion": Kind(DiffusionTrainer, diffusion_dry_run),
    "distillation": Kind(DistillationTrainer, distillation_dry_run),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: done; 1: a failed run; 2: a wrong request; 129, 130, 143: saved and stopped by SIGHUP, Ctrl-C, SIGTERM.
    """
    arguments = parse(argv)
    command = sys.argv if argv is None else ["litevae.train", *argv]
    try:
        with plain_warnings():
            if arguments.resume is not None:
                config_file = arguments.resume.expanduser() / "config.yaml"
                return resume(_kind(config_file).loop, arguments.resume, arguments.overrides, command)
            loop, dry_run = _kind(find_recipe(arguments.recipe))
            config = load_config(loop.schema, arguments.recipe, arguments.overrides)
            return dry_run(config) if arguments.dry_run else start(loop, config, command)
    except (ConfigError, DataError, CheckpointError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (BrokenRunError, NonFiniteError, OSError) as error:
        print(f"error: {error}; a run goes on from its newest checkpoint with --resume", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _kind(file: Path) -> Kind:
    """The kind of a recipe or of a run's config.yaml; without a file the first, whose loop says what is missing."""
    name = kind_of(file) if file.is_file() else "autoencoder"
    if name not in KINDS:
        raise ConfigError(f"{file}: kind must be {' or '.join(KINDS)}, got {name!r}")
    return KINDS[name]


if __name__ == "__main__":
    sys.exit(main())
