"""Latents on disk, and their scale: `python -m litevae.latents ~/photos --model runs/quickstart --output latents/a`

image -> [DWT -> feature extraction -> aggregation -> latent]
"""

import sys
from collections.abc import Sequence

from litevae.latent_cache.request import Encode, Fold, Request, Stats, parse


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
    import torch  # takes seconds, which --help and a mistyped option need not

    from litevae.data import DataError
    from litevae.latent_cache.encoding import encode
    from litevae.latent_cache.scale import fold, stats
    from litevae.loading import load_autoencoder
    from litevae.runs.command_line import plain_warnings
    from litevae.runs.config import ConfigError

    try:
        with plain_warnings():
            if isinstance(request, Stats):
                return stats(request, load_autoencoder)
            if isinstance(request, Fold):
                return fold(request, load_autoencoder)
            assert isinstance(request, Encode)
            return encode(request, load_autoencoder, command)
    except (ConfigError, DataError, ValueError, FileNotFoundError) as error:
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
