"""Images of a latent diffusion model: `python -m litevae.sample runs/ldm-quickstart`

noise -> [network, step by step -> latent -> frozen decoder]
"""

import sys
from collections.abc import Sequence

from litevae.diffusion.sample_request import SampleRequest, parse


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0: done; 1: a failure on the way; 2: a wrong request; 130: Ctrl-C."""
    request = parse(argv)
    try:
        return _run(request)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(request: SampleRequest) -> int:
    import torch  # takes seconds, which --help and a mistyped option need not

    from litevae.data import DataError
    from litevae.diffusion.drawing import sample
    from litevae.loading import load_autoencoder
    from litevae.losses.weight_files import WeightsError
    from litevae.runs.command_line import plain_warnings
    from litevae.runs.config import ConfigError

    try:
        with plain_warnings():
            return sample(request, load_autoencoder)
    except (ConfigError, DataError, WeightsError, ValueError, FileNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(f"error: {' '.join(str(error).split())}; try a smaller --batch-size", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
