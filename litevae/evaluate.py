"""The report card of an autoencoder: `python -m litevae.evaluate runs/quickstart photographs`

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]
"""

import sys
from collections.abc import Sequence

from litevae.evaluation.request import Comparison, Request, parse


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: done; 1: a failure on the way; 2: a wrong request; 129, 130, 143: saved and stopped by SIGHUP, Ctrl-C, SIGTERM.
    """
    request = parse(argv)
    try:
        return _run(request, ["litevae.evaluate", *(sys.argv[1:] if argv is None else argv)])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(request: Request | Comparison, command: Sequence[str]) -> int:
    # These import torch, which takes seconds that --help and a mistyped option need not.
    from litevae.data import DataError
    from litevae.evaluation.report_card import compare, evaluate
    from litevae.loading import load_autoencoder
    from litevae.losses.weight_files import WeightsError
    from litevae.runs.command_line import exit_code
    from litevae.runs.config import ConfigError

    def run() -> int:
        if isinstance(request, Comparison):
            return compare(request)
        return evaluate(request, load_autoencoder, command)

    return exit_code(run, (ConfigError, DataError, WeightsError, ValueError, FileNotFoundError))


if __name__ == "__main__":
    sys.exit(main())
