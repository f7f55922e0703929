"""A trained autoencoder on a photo: `python -m litevae.reconstruct photo.jpg --model runs/quickstart`

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> figures
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from litevae.checks import memory_ran_out
from litevae.data import UnreadableImageError, read_image
from litevae.evaluation import photo
from litevae.loading import load_model
from litevae.runs.command_line import plain_warnings
from litevae_kernels.files import check_file, unused

LARGE_PIXELS = 4_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for a failure, 2 for a wrong argument, 130 for Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        with plain_warnings():
            return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    output: Path = arguments.output or Path(f"{arguments.photo.stem}-reconstruction.png")
    try:
        check_file("--output", output, photo.PICTURES)
        output = output if arguments.output else unused(output)
        if (output.exists() or output.is_symlink()) and not arguments.overwrite:
            raise ValueError(f"{output} exists; choose another --output or add --overwrite")
        image = read_image(arguments.photo)
        if arguments.max_side:  # a smaller photo is left as it is
            image.thumbnail((arguments.max_side, arguments.max_side))
        photo.check_picture("--output", output, image)
        model = load_model(arguments.model)
    except (UnreadableImageError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    is_large = image.width * image.height > LARGE_PIXELS
    if arguments.blend:
        photo.blend_tiles(model)
    elif is_large and not photo.streams(model):
        print(f"warning: {image.width}x{image.height} pixels {photo.NEEDS}", file=sys.stderr)
    try:
        print(_write(model, image, output, is_large and photo.streams(model)))
    except (OSError, RuntimeError, MemoryError) as error:
        if memory_ran_out(error):
            what = "the photo is too large for this machine's memory; try --max-side 1024"
        elif isinstance(error, OSError):
            what = f"{output} cannot be written: {error.strerror or error}"
        else:
            raise
        print(f"error: {what}", file=sys.stderr)
        return 1
    return 0


def _write(model: Any, image: Image.Image, output: Path, by_strips: bool) -> str:
    write = photo.write_large_photo if by_strips else photo.write_photo
    return write(model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu")), image, output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.reconstruct",
        description="Write original | reconstruction | latent of a photo of any size, and print the PSNR.",
        epilog="example: python -m litevae.reconstruct photo.jpg --model runs/quickstart",
    )
    parser.add_argument("photo", type=Path, help="an image in any format that Pillow reads")
    models = "a run's folder, one written by save_pretrained, or owner/name on the Hub"
    parser.add_argument("--model", required=True, help=models)
    named = "a .png, .jpg or .tif (default: <photo>-reconstruction.png here, numbered if that exists)"
    parser.add_argument("--output", type=Path, help=named)
    parser.add_argument("--overwrite", action="store_true", help="let --output replace an existing file")
    blended = "for a decoder that sees the whole photo: tiles that are blended, in less memory, not exact"
    parser.add_argument("--blend", action="store_true", help=blended)
    parser.add_argument("--max-side", type=_positive, metavar="N", help="shrink a photo with a longer side to N pixels")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
