"""The arguments of `python -m litevae.train`, and its help."""

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from litevae.runs.recipes import named_overrides, recipes


@dataclass(frozen=True)
class Arguments:
    """A recipe to start (or only to look at, with `dry_run`) or, with `resume`, a run to go on with; never both."""

    recipe: str
    overrides: list[str]
    resume: Path | None
    dry_run: bool


def parse(argv: Sequence[str] | None) -> Arguments:
    """Read the command line; on a wrong one, print what is wrong and exit with code 2 (as argparse does)."""
    parser = _parser()
    parsed = parser.parse_intermixed_args(argv)
    words: list[str] = parsed.words
    if parsed.resume is not None:
        if words and "=" not in words[0]:
            parser.error(f"--resume goes on with the recipe of its run: leave out {words[0]!r}")
        if parsed.dry_run:
            parser.error("--dry-run is for a recipe, not for --resume")
        return Arguments("", words, parsed.resume, False)
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if "=" in words[0] and not Path(words[0]).is_file():
        parser.error(f"the recipe comes before the overrides, e.g. quickstart {words[0]}")
    return Arguments(words[0], words[1:], None, parsed.dry_run)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings as one line each, above the progress bar."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        with contextlib.suppress(OSError):  # a closed pipe ends no run
            tqdm.write(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def exit_code(run: Callable[[], int], wrong: tuple[type[Exception], ...]) -> int:
    """What `run` returns, for a command that goes on when it is started again; its errors become one line.

    `wrong`: the errors of a wrong request, 2; a failure on the way is 1.
    """
    import torch  # takes seconds, which --help and a mistyped option need not

    try:
        with plain_warnings():
            return run()
    except wrong as error:
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


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<18} {about}" for name, about in recipes().items())
    named = "\n".join(f"  {name:<30} {about}" for name, about in named_overrides().items())
    parser = argparse.ArgumentParser(
        prog="python -m litevae.train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s RECIPE [section.key=value ...] [--dry-run]\n"
        "       %(prog)s --resume RUN [section.key=value ...]",
        description="Train a LiteVAE, a diffusion model on its latents, or a LiteVAE encoder for the latents of "
        "another autoencoder. Everything about a run is written to its folder (runs/<recipe>).",
        epilog=f"""recipes:
{listed}

named overrides, each for one or more keys:
{named}

examples:
  python -m litevae.train quickstart
  python -m litevae.train imagenet128 data.path=~/imagenet model.size=S --dry-run
  torchrun --nproc-per-node 2 -m litevae.train imagenet128 data.path=~/imagenet train.mixed_precision=bf16
  python -m litevae.train quickstart train.steps=2000 run.dir=runs/longer
  python -m litevae.train my.yaml data.path=~/photos model.size=B train.steps=1000
  python -m litevae.train --resume runs/quickstart train.steps=2000

sections and keys: litevae/configs/README.md; a complete example: the config.yaml of any run""",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE",
        help="a recipe's name or the path of a yaml file, then section.key=value or section=name",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the whole config, parameters, arithmetic and memory, and check the data, without training",
    )
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with the run in this folder, from its newest whole checkpoint"
    )
    return parser
