"""What an evaluation is told: the arguments of `python -m litevae.evaluate`, checked before torch is imported."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litevae.evaluation.catalogue import METRICS, metric_names

DTYPES = ("float32", "bfloat16", "float16")
PROTOCOLS = ("ldm", "adm", "lanczos")
"""Names of litevae.data's `PROTOCOLS`, which imports torch."""


@dataclass(frozen=True)
class Request:
    """One evaluation; the fields are the arguments, which `--help` explains."""

    model: str
    data: str
    metrics: tuple[str, ...] | None
    protocol: str
    sample: bool
    sizes: tuple[int, ...]
    images: int | None
    output: Path | None
    weights: Path | None
    download: bool
    random_weights: bool
    training_data: str | None
    subfolder: str | None
    teacher: str | None
    teacher_subfolder: str | None
    dtype: str
    device: str
    batch_size: int | None
    split: str
    image_column: str | None
    workers: int | None
    seed: int
    label: str | None


@dataclass(frozen=True)
class Comparison:
    """`--compare`: results of earlier evaluations, side by side."""

    results: tuple[Path, ...]
    output: Path | None


def parse(argv: Sequence[str] | None) -> Request | Comparison:
    """Read the command line; on a wrong one, print what is wrong and exit with code 2 (as argparse does)."""
    parser = _parser()
    parsed = parser.parse_args(argv)
    if parsed.compare is not None:
        if parsed.model is not None:
            parser.error(f"--compare reads results.json files: leave out MODEL {parsed.model!r}")
        if len(parsed.compare) < 2:
            parser.error("--compare needs two results.json files or more")
        return Comparison(tuple(parsed.compare), parsed.output)
    if parsed.model is None:
        parser.error("MODEL and DATA are needed, e.g. runs/quickstart photographs")
    if parsed.data is None:
        parser.error(f"DATA is needed after MODEL {parsed.model!r}, e.g. photographs")
    values = vars(parsed)
    del values["compare"]
    return Request(**values)


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<13} {metric.about}" for name, metric in METRICS.items())
    parser = argparse.ArgumentParser(
        prog="python -m litevae.evaluate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s MODEL DATA [options]\n       %(prog)s --compare RESULTS.JSON RESULTS.JSON ... [--output DIR]",
        description="Measure an autoencoder on images: results.json, results.md, scores.csv and report.html.",
        epilog=f"""metrics:
{listed}

examples:
  python -m litevae.evaluate runs/quickstart photographs
  python -m litevae.evaluate bicubic photographs
  python -m litevae.evaluate runs/imagenet128 ~/imagenet/val --sizes 128,256 --metrics psnr,ssim,lpips,rfid,fwd
  python -m litevae.evaluate stabilityai/sd-vae-ft-mse ~/imagenet/val --weights ~/weights
  torchrun --nproc-per-node 8 -m litevae.evaluate runs/imagenet128 ~/imagenet/val
  python -m litevae.evaluate --compare evaluations/a/results.json evaluations/b/results.json""",
    )
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a run's folder, a folder of save_pretrained of any diffusers "
        "autoencoder of images, owner/name on the Hub, or bicubic, the baseline (beside latents at H/4 and H/16 "
        "bicubic-4x and bicubic-16x)")  # fmt: skip
    add("data", nargs="?", metavar="DATA", help="photographs (scikit-image's two that training holds out), a folder of "
        "images, tar shards or a dataset, or owner/name on the Hub")  # fmt: skip
    add("--metrics", type=_metrics, metavar="A,B", help="default: those that this machine has the weights for")
    add("--protocol", choices=PROTOCOLS, default="ldm", help="how images are resized and cut (default: ldm)")
    latent = parser.add_mutually_exclusive_group()
    latent.add_argument("--sample", action="store_true", help="decode a sample of the posterior")
    latent.add_argument("--mode", dest="sample", action="store_false", help="decode its mode (the default)")
    add("--sizes", type=_sizes, default=(256,), metavar="N,M", help="sides in pixels (default: 256)")
    add(
        "--images",
        type=positive,
        metavar="N",
        help="at most N images, spread over DATA (default: all)",
    )
    add("--output", type=Path, metavar="DIR", help="default: evaluations/MODEL-DATA")
    add("--weights", type=Path, metavar="DIR", help="where the pretrained weights of metrics are (default: torch hub's "
        "cache)")  # fmt: skip
    add("--download", action="store_true", help="download weights that are missing")
    add("--random-weights", action="store_true", help="networks with random weights, for tests; results name them so")
    add("--training-data", metavar="DATA", help="what ifid interpolates with: images of the model's training; of "
        "a dataset, its split train")  # fmt: skip
    add("--subfolder", metavar="DIR", help="where the autoencoder is in MODEL, such as vae")
    add("--teacher", metavar="MODEL", help="what teacher-mse compares the model with: the autoencoder whose latents it "
        "makes (default: the one that a HybridAutoencoder was made from)")  # fmt: skip
    add("--teacher-subfolder", metavar="DIR", help="where the autoencoder is in it, such as vae")
    add("--dtype", choices=DTYPES, default="float32", help="of the model (default: float32)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--batch-size", type=positive, metavar="N", help="images at once (default: by size and device)")
    add("--split", default="validation", help="of DATA, if it is a dataset (default: validation)")
    add("--image-column", metavar="NAME", help="of a dataset; of tar shards the ending of members")
    add("--workers", type=whole, metavar="N", help="processes that decode images")
    add("--seed", type=whole, default=0, help="of everything that is drawn (default: 0)")
    add("--label", help="what tables and figures call the model (default: the name of its folder)")
    add("--compare", type=Path, nargs="+", metavar="RESULTS.JSON", help="results side by side in one report")
    return parser


def _metrics(text: str) -> tuple[str, ...]:
    try:
        return metric_names(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 0, got {text}")
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text}")
    return int(text)


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(positive(part.strip()) for part in text.split(","))
    if min(sizes) < 16:
        raise argparse.ArgumentTypeError(f"must be at least 16, got {min(sizes)}")
    return tuple(sorted(set(sizes)))
