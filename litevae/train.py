"""`python -m litevae.train quickstart`: the one command for every kind of training; today the autoencoder's.

The loop is litevae/runs/loop.py. Another kind is a config and a `Loop` of its own, which `main` must choose for recipes
and for --resume: neither a recipe nor a run folder records its kind yet.
"""

import sys
from collections.abc import Sequence

from litevae.data import DataError
from litevae.losses.weight_files import WeightsError
from litevae.runs.checkpoint import CheckpointError
from litevae.runs.command_line import parse, plain_warnings
from litevae.runs.config import ConfigError
from litevae.runs.loop import resume, start
from litevae.runs.progress import BrokenRunError, NonFiniteError
from litevae.runs.recipes import load_config
from litevae.training.config import RunConfig
from litevae.training.dry_run import dry_run
from litevae.training.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: done; 1: a failed run; 2: a wrong request; 129, 130, 143: saved and stopped by SIGHUP, Ctrl-C, SIGTERM.
    """
    arguments = parse(argv)
    command = sys.argv if argv is None else ["litevae.train", *argv]
    try:
        with plain_warnings():
            if arguments.resume is not None:
                return resume(Trainer, arguments.resume, arguments.overrides, command)
            config = load_config(RunConfig, arguments.recipe, arguments.overrides)
            return dry_run(config) if arguments.dry_run else start(Trainer, config, command)
    except (ConfigError, DataError, CheckpointError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (BrokenRunError, NonFiniteError, OSError) as error:
        print(f"error: {error}; a run goes on from its newest checkpoint with --resume", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
