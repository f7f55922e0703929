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
    import torch  # takes seconds, which --help and a mistyped option need not

    from litevae.data import DataError
    from litevae.evaluation.report_card import compare, evaluate
    from litevae.loading import load_autoencoder
    from litevae.losses.weight_files import WeightsError
    from litevae.runs.command_line import plain_warnings
    from litevae.runs.config import ConfigError

    try:
        with plain_warnings():
            if isinstance(request, Comparison):
                return compare(request)
            return evaluate(request, load_autoencoder, command)
    except (ConfigError, DataError, WeightsError, ValueError, FileNotFoundError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(f"error: {_one_line(error)}; go on with a smaller --batch-size", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {_one_line(error)}; started again with the same arguments it goes on", file=sys.stderr)
        return 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
