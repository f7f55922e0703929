"""Which figures does `python -m litevae.paper` draw, and from what?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from litevae.evaluation.resolution_curves import save_resolution_curves
from litevae.paper_tables.sources import RESULTS, read_results


@dataclass(frozen=True)
class Drawing:
    """How the like of a figure is drawn."""

    option: str
    """The command's option that names what it is drawn from: "results"."""
    draw: Callable[[Path, Sequence[Path]], None]
    """(image file, what the option named)."""


def _draw_resolutions(path: Path, places: Sequence[Path]) -> None:
    """Figures 5 and 8, of results.json files or folders that have one."""
    files = [place / RESULTS if place.is_dir() else place for place in places]
    save_resolution_curves(path, [read_results(file) for file in files])


DRAWINGS: dict[int, Drawing] = {
    5: Drawing("results", _draw_resolutions),
    8: Drawing("results", _draw_resolutions),
}
