"""A page to drop photos on: `python -m litevae.demo --model runs/quickstart`

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> figures
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from litevae.demo_page.page import build_page, serve
from litevae.demo_page.shown import DemoError
from litevae.loading import load_model
from litevae.runs.command_line import plain_warnings


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 after Ctrl-C, 1 for a failure, 2 for a wrong argument."""
    arguments = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="litevae-demo-") as copies:
        os.environ["GRADIO_TEMP_DIR"] = copies  # of photos and results, which gradio would leave behind
        return _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        if importlib.util.find_spec("gradio") is None:
            raise ValueError("the demo needs gradio, which is not installed; pip install 'litevae[demo]'")
        with plain_warnings():
            model = load_model(arguments.model)
            model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
            name = arguments.title or Path(arguments.model).expanduser().resolve().name
            page = build_page(model, name, arguments.max_side, arguments.photo)
    except (DemoError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    try:
        address = serve(page, arguments.port, arguments.share == "on")
    except OSError as error:
        print(f"error: --port {arguments.port}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"open      {address}\nstop      Ctrl-C", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.demo",
        description="Serve a page on this machine: drop a photo, slide between it and its reconstruction, see its "
        "latent, the PSNR and the bytes.",
        epilog="example: python -m litevae.demo --model runs/quickstart --photo photo.jpg",
    )
    parser.add_argument(
        "--model", required=True, help="a run's folder, one written by save_pretrained, or owner/name on the Hub"
    )
    parser.add_argument("--photo", type=Path, help="shown when the page opens")
    parser.add_argument("--title", help="of the page (default: the model's folder)")
    parser.add_argument("--port", type=_port, help="of this machine (default: the first free one from 7860)")
    parser.add_argument(
        "--share", choices=("on", "off"), default="off", help="on: a public address too, through gradio's server"
    )
    parser.add_argument(
        "--max-side", type=_side, default=1024, metavar="N", help="shrink photos to N pixels (default: 1024)"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, got {text}")
    return int(text)


def _side(text: str) -> int:
    if not text.isdecimal() or int(text) < 16:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 16, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
