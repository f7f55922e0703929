"""What `python -m litevae.sample` is told, checked before torch is imported."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litevae.evaluation.request import positive, whole

ENDING = ".png"
OWN_DATA = "run"
"""The value of --fid that means crops of the run's own training data."""


@dataclass(frozen=True)
class SampleRequest:
    """The fields are the arguments, which `--help` explains."""

    run: Path
    images: int
    output: Path | None
    steps: int | None
    sampler: str | None
    eta: float | None
    guidance: float | None
    label: str | None
    seed: int
    batch_size: int | None
    device: str
    fid: str | None
    weights: Path | None
    download: bool
    random_weights: bool


def parse(argv: Sequence[str] | None) -> SampleRequest:
    """Read the command line; on a wrong one, print what is wrong and exit with code 2 (as argparse does)."""
    parser = argparse.ArgumentParser(
        prog="python -m litevae.sample",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Draw images from a latent diffusion model. Image n is a function of (seed, n): another number of "
        "processes draws the same images.",
        epilog="""examples:
  python -m litevae.sample runs/ldm-quickstart
  python -m litevae.sample runs/dit --class "golden retriever" --guidance 4 --images 9 --output dogs.png
  torchrun --nproc-per-node 8 -m litevae.sample runs/ldm-ffhq256 --images 50000 --output samples --fid ~/ffhq/train""",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the folder of a finished diffusion run, or of a pipeline that it wrote")
    add("--images", type=positive, default=16, metavar="N", help="how many (default: 16)")
    add("--output", type=Path, metavar="PATH", help="a folder, for a PNG of each image; or FILE.png, for one grid "
        "(default: RUN/samples-SEED.png)")  # fmt: skip
    add("--steps", type=positive, metavar="N", help="calls of the network for an image (default: the recipe's)")
    add("--sampler", choices=("ddim", "euler", "dpm"), help="ddim for models of noise, euler for flows, dpm for both "
        "(default: the recipe's)")  # fmt: skip
    add("--eta", type=float, metavar="X", help="of ddim: 0 adds no noise on the way, 1 as much as DDPM (default: the "
        "recipe's, 0 with --sampler)")  # fmt: skip
    add("--guidance", type=float, metavar="X", help="of classes; 1: none (default: the recipe's)")
    add("--class", dest="label", metavar="NAME", help="a class's name or number (default: all in turn)")
    add("--seed", type=whole, default=0, help="of the noise (default: 0)")
    add("--batch-size", type=positive, metavar="N", help="images at once (default: 64 on a GPU, 8 on a CPU)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--fid", metavar="DATA", help="print FID (if its weights are there) and FWD between the samples and as many "
        f"images of DATA, as litevae.evaluate takes it; {OWN_DATA}: crops of the run's own data")  # fmt: skip
    add("--weights", type=Path, metavar="DIR", help="where the pretrained weights of metrics are")
    add("--download", action="store_true", help="download weights that are missing")
    add("--random-weights", action="store_true", help="networks with random weights, for tests")
    return SampleRequest(**vars(parser.parse_args(argv)))
