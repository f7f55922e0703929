"""What `python -m litevae.latents` is told: three commands and their arguments, checked before torch is imported."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litevae.evaluation.request import DTYPES, positive, whole

PROTOCOLS = ("lanczos", "ldm", "adm")
"""Names of litevae.data's `PROTOCOLS`, which imports torch."""


@dataclass(frozen=True)
class Encode:
    """DATA --model MODEL --output DIR: a new cache; the fields are the arguments, which `--help` explains."""

    data: str
    model: str
    subfolder: str | None
    output: Path
    size: int
    protocol: str
    flips: bool
    storage_dtype: str
    shard_size: int | None
    images: int | None
    split: str
    image_column: str | None
    labels: bool
    label_column: str
    dtype: str
    device: str
    batch_size: int | None
    workers: int | None


@dataclass(frozen=True)
class Stats:
    """`stats CACHE`: the scale of its latents, printed and, with a model, written into a copy of it."""

    cache: Path
    model: str | None
    subfolder: str | None
    output: Path | None
    scalar: bool


@dataclass(frozen=True)
class Fold:
    """`fold MODEL --output DIR`: a copy whose own latents have mean 0 and standard deviation 1."""

    model: str
    subfolder: str | None
    output: Path
    cache: Path | None


Request = Encode | Stats | Fold


def parse(argv: Sequence[str] | None, words: Sequence[str]) -> Request:
    """Read the command line `argv` (None: that of the program, `words`); a wrong one ends the program with code 2."""
    given = list(words if argv is None else argv)
    kinds: dict[str, tuple[Any, argparse.ArgumentParser]] = {"stats": (Stats, _stats()), "fold": (Fold, _fold())}
    if given and given[0] in kinds:
        kind, parser = kinds[given[0]]
        parsed = parser.parse_args(given[1:])
        if kind is Stats and (parsed.model is None) != (parsed.output is None):
            parser.error("--model and --output go together: the copy of MODEL that gets the scale is written to DIR")
        request: Request = kind(**vars(parsed))
        return request
    return Encode(**vars(_encode().parse_args(given)))


def _encode() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.latents",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s DATA --model MODEL --output DIR [options]\n"
        "       %(prog)s stats CACHE [--model MODEL --output DIR] [--scalar]\n"
        "       %(prog)s fold MODEL --output DIR [--cache CACHE]",
        description="Encode images once: the moments (mean and log-variance) of their posteriors, in safetensors "
        "shards with one index. What was interrupted goes on when it is started again with the same arguments.",
        epilog="""examples:
  python -m litevae.latents ~/imagenet/train --model runs/imagenet256-full --output latents/imagenet --size 256
  torchrun --nproc-per-node 8 -m litevae.latents ~/imagenet/train --model runs/b --output latents/imagenet
  python -m litevae.latents stats latents/imagenet --model runs/b --output models/b-scaled
  python -m litevae.latents fold models/b-scaled --output models/b-folded""",
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="photographs, a folder of images, tar shards or a dataset, or owner/name on the "
        "Hub")  # fmt: skip
    add("--model", required=True, help="a run's folder, or any autoencoder that litevae.evaluate takes")
    add("--subfolder", metavar="DIR", help="where the autoencoder is in MODEL, such as vae")
    add("--output", type=Path, required=True, metavar="DIR", help="the new cache")
    add("--size", type=positive, default=256, metavar="N", help="side of the images in pixels (default: 256)")
    add("--protocol", choices=PROTOCOLS, default="lanczos", help="how images are resized and cut (default: lanczos, "
        "as in training)")  # fmt: skip
    add("--no-flips", dest="flips", action="store_false", help="leave out the latents of mirrored images")
    add("--storage-dtype", choices=DTYPES, default="float16", help="of the moments on disk (default: float16; the "
        "index has the error)")  # fmt: skip
    add("--shard-size", type=positive, metavar="N", help="images of a shard (default: 10,000, or what 512 MiB hold)")
    add("--images", type=positive, metavar="N", help="at most N images, spread over DATA (default: all)")
    add("--split", default="train", help="of DATA, if it is a dataset (default: train)")
    add("--image-column", metavar="NAME", help="of a dataset; of tar shards the ending of members")
    add("--no-labels", dest="labels", action="store_false", help="leave out the classes of the images")
    add("--label-column", default="label", metavar="NAME", help="of a dataset (default: label)")
    add("--dtype", choices=DTYPES, default="float32", help="of the model (default: float32)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--batch-size", type=positive, metavar="N", help="images at once (default: by size and device)")
    add("--workers", type=whole, metavar="N", help="processes that decode images")
    return parser


def _stats() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.latents stats",
        description="Print the scale of a cache's latents; with --model, write it into a copy of that model.",
    )
    add = parser.add_argument
    add("cache", type=Path, metavar="CACHE", help="a folder that litevae.latents has written")
    add("--model", help="the model that the cache was made with")
    add("--subfolder", metavar="DIR", help="where the autoencoder is in MODEL")
    add("--output", type=Path, metavar="DIR", help="where its copy is written")
    add("--scalar", action="store_true", help="one scaling_factor, as LDM, without a shift (default: mean and standard "
        "deviation of each channel too)")  # fmt: skip
    return parser


def _fold() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.latents fold",
        description="Move the mean and standard deviation of each latent channel into 1x1 convolutions: a model whose "
        "latents every diffusers pipeline uses right with scaling_factor 1.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run's folder or a model; by default its config says the scale")
    add("--subfolder", metavar="DIR", help="where the autoencoder is in MODEL")
    add("--output", type=Path, required=True, metavar="DIR", help="where the folded model is written")
    add("--cache", type=Path, help="take the scale from this cache of MODEL's latents")
    return parser
