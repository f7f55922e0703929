"""What `python -m litevae.export` is told: its arguments, checked before torch is imported."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FORMATS = {
    "onnx": "for ONNX Runtime, TensorRT, OpenVINO",
    "pt2": "a program of torch.export, for PyTorch without this package",
    "aoti": "compiled for this machine by AOTInductor, for C++ without Python",
}
PARTS = ("encoder", "decoder")
DTYPES = ("float32", "bfloat16", "float16")

Size = tuple[int, int, int]
"""A batch of images, [B, H, W]."""


@dataclass(frozen=True)
class Request:
    """One export; the fields are the arguments, which `--help` explains."""

    model: str
    to: str
    output: Path
    part: str
    static: Size | None
    dtype: str
    subfolder: str | None
    device: str
    overwrite: bool


def parse(argv: Sequence[str] | None) -> Request:
    """Read the command line; on a wrong one, print what is wrong and exit with code 2 (as argparse does)."""
    return Request(**vars(_parser().parse_args(argv)))


def size(text: str) -> Size:
    """HxW or BxHxW as [B, H, W].

    >>> size("256x320"), size("4x256x320")
    ((1, 256, 320), (4, 256, 320))
    """
    numbers = text.lower().split("x")
    if len(numbers) not in (2, 3) or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"must be HxW or BxHxW in pixels, such as 256x256, got {text}")
    batch, height, width = map(int, numbers if len(numbers) == 3 else ["1", *numbers])
    return batch, height, width


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<5} {about}" for name, about in FORMATS.items())
    parser = argparse.ArgumentParser(
        prog="python -m litevae.export",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write a model for other runtimes, a file for its encoder and one for its decoder, with a .json "
        "that says how to use each. Every file is run in a process without litevae and compared with the model.",
        epilog=f"""formats:
{listed}

examples:
  python -m litevae.export runs/quickstart --to onnx --output exported
  python -m litevae.export runs/quickstart --to onnx --output exported --part decoder --static 512x768 --dtype float16
  python -m litevae.export stabilityai/sdxl-vae --to pt2 --output exported""",
    )
    parser.add_argument("model", metavar="MODEL", help="a run's or save_pretrained's folder, or owner/name on the Hub")
    parser.add_argument("--to", required=True, choices=tuple(FORMATS))
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the folder of the files")
    parser.add_argument("--part", choices=(*PARTS, "both"), default="both", help="(default: both)")
    parser.add_argument(
        "--static",
        type=size,
        metavar="[Bx]HxW",
        help="for batches of B images (default: 1) of H x W pixels alone; else for every batch and size",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of weights, inputs and outputs")
    parser.add_argument("--subfolder", help="where the model is in MODEL, such as vae in a pipeline")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="that pt2 and aoti run on")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser
