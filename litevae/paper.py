"""The paper's tables and figures, and ours beside them: `python -m litevae.paper`, `... table 2`, `... figure 5`"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevae.paper_tables import contents, markdown
from litevae.paper_tables.drawings import DRAWINGS
from litevae.paper_tables.measurements import read
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import check_file, replacing, write_text

PICTURES = (".png", ".jpg", ".jpeg")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 for a wrong request."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.kind is None) != (arguments.number is None):
        parser.error("table and figure need a number, e.g. table 2")
    try:
        if arguments.output is not None and arguments.output.suffix.lower() in PICTURES:
            _draw(arguments)
        else:
            _write(arguments)
    except (ValueError, OSError) as error:
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


def _draw(arguments: argparse.Namespace) -> None:
    """A figure as a picture."""
    if arguments.kind != "figure":
        raise wrong_value("--output", "end in .md for tables", str(arguments.output))
    figure = contents.figure(arguments.number)
    if figure.number not in DRAWINGS:
        raise wrong_value("figure", f"be of {', '.join(map(str, DRAWINGS))} to be drawn by this command", figure.number,
                          figure.missing or figure.command or "")  # fmt: skip
    drawing = DRAWINGS[figure.number]
    given = getattr(arguments, drawing.option)
    if not given:
        raise ValueError(f"figure {figure.number} needs --{drawing.option}, e.g. {figure.command}")
    check_file("--output", arguments.output, PICTURES)
    with replacing(arguments.output.resolve()) as temporary:
        drawing.draw(temporary, [Path(word).expanduser() for word in given])
    print(f"written   {arguments.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.paper",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [table N | figure N] [--results PATH ...] [--output FILE]",
        description="What the paper prints, the commands that make the like of it, and what was measured beside it.",
        epilog="""examples:
  python -m litevae.paper
  python -m litevae.paper table 2 --results evaluations runs --output table2.md
  python -m litevae.paper table 1 --results 1-ffhq256-litevae=evaluations/mine/results.json
  python -m litevae.paper table 3 --results benchmarks/results
  python -m litevae.paper figure 5 --results evaluations/a/results.json evaluations/b/results.json --output fig5.png""",
    )
    add = parser.add_argument
    add("kind", nargs="?", choices=("table", "figure"), metavar="table|figure", help="leave out for a list of all")
    add("number", nargs="?", type=int, metavar="N", help="of the table or figure")
    add("--results", nargs="+", default=[], metavar="PATH", help="results.json files, runs, or folders above them; "
        "each fills the row whose id is its label or its run's name; ROW_ID=PATH names the row")  # fmt: skip
    add("--output", type=Path, metavar="FILE", help="FILE.md, or FILE.png for a figure (default: the terminal)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
