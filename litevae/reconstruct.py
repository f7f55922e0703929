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

from litevae.data import UnreadableImageError, read_image
from litevae.evaluation.photo import blend_tiles, streams, write_large_photo, write_photo
from litevae.loading import load_model
from litevae.runs.command_line import plain_warnings
from litevae_kernels.files import check_file, unused

LARGE_PIXELS = 4_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for a failure, 2 for a wrong argument."""
    arguments = _parser().parse_args(argv)
    output: Path = arguments.output or Path(f"{arguments.photo.stem}-reconstruction.png")
    try:
        with plain_warnings():
            check_file("--output", output, (".png", ".jpg", ".jpeg", ".tif", ".tiff"))
            output = output if arguments.output else unused(output)
            if (output.exists() or output.is_symlink()) and not arguments.overwrite:
                raise ValueError(f"{output} exists; choose another --output or add --overwrite")
            image = read_image(arguments.photo)
            model = load_model(arguments.model)
    except (UnreadableImageError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if arguments.max_side and max(image.size) > arguments.max_side:
        image.thumbnail((arguments.max_side, arguments.max_side))
    is_large = image.width * image.height > LARGE_PIXELS
    if arguments.blend:
        blend_tiles(model)
    elif is_large and not streams(model):
        print(
            f"warning: {image.width}x{image.height} pixels need much memory and time (the decoder's GroupNorm "
            "or attention sees the whole photo); --max-side 2048 reconstructs a smaller copy, --blend blends tiles",
            file=sys.stderr,
        )
    try:
        print(_write(model, image, output, is_large and streams(model)))
    except OSError as error:
        print(f"error: {output} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 1
    except (torch.OutOfMemoryError, MemoryError):
        print("error: the photo is too large for this machine's memory; try --max-side 1024", file=sys.stderr)
        return 1
    return 0


def _write(model: Any, image: Image.Image, output: Path, by_strips: bool) -> str:
    model = model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return write_large_photo(model, image, output) if by_strips else write_photo(model, image, output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.reconstruct",
        description="Write original | reconstruction | latent of a photo of any size, and print the PSNR.",
        epilog="example: python -m litevae.reconstruct photo.jpg --model runs/quickstart",
    )
    parser.add_argument("photo", type=Path, help="an image in any format that Pillow reads")
    parser.add_argument(
        "--model", required=True, help="a run's folder, one written by save_pretrained, or owner/name on the Hub"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="a .png, .jpg or .tif (default: <photo>-reconstruction.png here, numbered if that exists)",
    )
    parser.add_argument("--overwrite", action="store_true", help="let --output replace an existing file")
    parser.add_argument(
        "--blend",
        action="store_true",
        help="for a decoder that sees the whole photo: tiles that are blended, in less memory, not exact",
    )
    parser.add_argument(
        "--max-side", type=_positive, metavar="N", help="shrink a photo whose longer side exceeds N pixels"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
