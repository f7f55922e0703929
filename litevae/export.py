"""A model for other runtimes: `python -m litevae.export runs/quickstart --to onnx --output exported`

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

import sys
from collections.abc import Sequence
from typing import Any

from litevae.exporting.request import Request, parse


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for a failure, 2 for a wrong argument."""
    request = parse(argv)
    try:
        return _run(request)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(request: Request) -> int:
    # These import torch, which takes seconds that --help and a mistyped option need not.
    import torch

    from litevae.exporting import ExportError, export_model
    from litevae.exporting.export import check_device
    from litevae.loading import load_autoencoder
    from litevae.runs.command_line import plain_warnings

    dtype = getattr(torch, request.dtype)
    try:
        with plain_warnings():
            check_device("--device", request.device)
            model: Any = load_autoencoder(request.model, request.subfolder).to(request.device)
            files = export_model(
                model,
                request.output,
                request.to,
                part=request.part,
                static=request.static,
                dtype=dtype,
                overwrite=request.overwrite,
                report=lambda exported: print(exported, flush=True),
            )
    except (FileExistsError, FileNotFoundError, ModuleNotFoundError, TypeError, ValueError) as error:
        return _failed(error, 2)
    except (ExportError, OSError, torch.OutOfMemoryError) as error:
        return _failed(error, 1)
    print(f"{files[0].description_path.name} says how to use {files[0].path.name} without litevae")
    return 0


def _failed(error: Exception, code: int) -> int:
    hint = "; choose another --output or add --overwrite" if isinstance(error, FileExistsError) else ""
    print(f"error: {' '.join(str(error).split())}{hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
