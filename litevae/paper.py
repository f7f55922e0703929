"""The paper's tables and figures, and ours beside them: `python -m litevae.paper`, `... table 2`, `... figure 5`"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevae.data import DataError
from litevae.loading import load_model
from litevae.paper_tables import contents, markdown
from litevae.paper_tables.drawings import OPTIONS, PICTURES, draw
from litevae.paper_tables.measurements import read
from litevae.runs.command_line import plain_warnings
from litevae_kernels.files import check_file, write_text


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 for a wrong request."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.kind is None) != (arguments.number is None):
        parser.error("table and figure need a number, e.g. table 2")
    if arguments.kind != "figure" and (arguments.models or arguments.runs):
        parser.error("--models and --runs are what figures are drawn from")
    try:
        given = {option: getattr(arguments, option) for option in OPTIONS if getattr(arguments, option)}
        is_picture = arguments.output is not None and arguments.output.suffix.lower() in PICTURES
        if arguments.kind == "figure" and (given or is_picture):
            with plain_warnings():
                draw(contents.figure(arguments.number), given, arguments.output, load_model)
            print(f"written   {arguments.output}")
        else:
            _write(arguments)
    except (DataError, ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _write(arguments: argparse.Namespace) -> None:
    """Markdown to --output or the terminal."""
    if arguments.output is not None:
        check_file("--output", arguments.output, (".md",))
    if arguments.kind == "figure":
        text = markdown.figure_page(contents.figure(arguments.number))
    else:
        tables = contents.TABLES if arguments.number is None else contents.tables(arguments.number)
        measured, unused = read(arguments.results) if arguments.results else ([], [])
        for reason in unused:
            print(f"warning: {reason}", file=sys.stderr)
        pages = [markdown.page(table, measured) for table in tables]
        text = markdown.listing(measured) if arguments.number is None else "\n".join(pages)
    if arguments.output is None:
        print(text, end="")
    else:
        write_text(arguments.output, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.paper",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [table N | figure N] [--results | --models | --runs PATH ...] [--output FILE]",
        description="What the paper prints, the commands that make the like of it, and what was measured beside it.",
        epilog="""examples:
  python -m litevae.paper
  python -m litevae.paper table 2 --results evaluations runs --output table2.md
  python -m litevae.paper table 1 --results 1-ffhq256-litevae=evaluations/mine/results.json
  python -m litevae.paper table 3 --results benchmarks/results
  python -m litevae.paper figure 5 --results evaluations/a/results.json evaluations/b/results.json --output fig5.png
  python -m litevae.paper figure 3 --models runs/group-norm runs/smc --output figure3.png
  python -m litevae.paper figure 7 --runs runs/adaptive runs/constant --output figure7.png""",
    )
    add = parser.add_argument
    add("kind", nargs="?", choices=("table", "figure"), metavar="table|figure", help="leave out for a list of all")
    add("number", nargs="?", type=int, metavar="N", help="of the table or figure")
    add("--results", nargs="+", default=[], metavar="PATH", help="results.json files, runs, or folders above them; "
        "each fills the row whose id is its label or its run's name; ROW_ID=PATH names the row")  # fmt: skip
    add("--models", nargs="+", metavar="MODEL", help="of figure 3: runs, folders of save_pretrained, or owner/name")
    add("--runs", nargs="+", metavar="RUN", help="of figure 7")
    add("--output", type=Path, metavar="FILE", help="FILE.md, or FILE.png for a figure (default: the terminal)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
