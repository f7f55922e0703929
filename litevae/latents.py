"""Latents on disk, and their scale: `python -m litevae.latents ~/photos --model runs/quickstart --output latents/a`

image -> [DWT -> feature extraction -> aggregation -> latent]
"""

import sys
from collections.abc import Sequence

from litevae.latent_cache.request import Fold, Request, Stats, parse


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: done; 1: a failure on the way; 2: a wrong request; 129, 130, 143: stopped by SIGHUP, Ctrl-C, SIGTERM.
    """
    request = parse(argv, sys.argv[1:])
    try:
        return _run(request, ["litevae.latents", *(sys.argv[1:] if argv is None else argv)])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(request: Request, command: Sequence[str]) -> int:
    # These import torch, which takes seconds that --help and a mistyped option need not.
    from litevae.data import DataError
    from litevae.latent_cache.encoding import encode
    from litevae.latent_cache.scale import fold, stats
    from litevae.loading import load_autoencoder
    from litevae.runs.command_line import exit_code
    from litevae.runs.config import ConfigError

    def run() -> int:
        if isinstance(request, Stats):
            return stats(request, load_autoencoder)
        if isinstance(request, Fold):
            return fold(request, load_autoencoder)
        return encode(request, load_autoencoder, command)

    return exit_code(run, (ConfigError, DataError, ValueError, FileNotFoundError))


if __name__ == "__main__":
    sys.exit(main())
