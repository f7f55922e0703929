"""Which figures does `python -m litevae.paper` draw, and from what?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from litevae.data import open_images, protocol
from litevae.evaluation.feature_maps import save_feature_maps
from litevae.evaluation.gradient_ratio import save_gradient_ratio
from litevae.evaluation.report import read_results
from litevae.evaluation.resolution_curves import save_resolution_curves
from litevae.paper_tables.structure import Figure
from litevae.runs.run_folder import RunFolder
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import check_file, replacing

Load = Callable[[str], nn.Module]
"""A model's folder or name on the Hub -> the autoencoder, in eval mode on the CPU."""
OPTIONS = ("results", "models", "runs")
"""The command's options that name what a figure is drawn from."""
PICTURES = (".png", ".jpg", ".jpeg")
SIDE = 256
"""Of the photographs that go through a decoder, in pixels."""


@dataclass(frozen=True)
class Drawing:
    """How the like of a figure is drawn."""

    option: str
    """One of `OPTIONS`."""
    draw: Callable[[Path, Sequence[str], Load], None]
    """(image file, what the option named, how a model is loaded)."""


def draw(figure: Figure, given: Mapping[str, Sequence[str]], output: Path | None, load: Load) -> None:
    """Write a figure as a picture.

    Args:
        given: option -> what it names.

    Raises:
        ValueError: no such drawing, what it is drawn from is not given or cannot be drawn, or `output` is no picture.
        OSError: a file cannot be read or written.
    """
    if figure.number not in DRAWINGS:
        rule = f"be of {', '.join(map(str, DRAWINGS))} to be drawn by this command"
        raise wrong_value("figure", rule, figure.number, figure.missing or figure.command or "")
    drawing = DRAWINGS[figure.number]
    if list(given) != [drawing.option]:
        got = " ".join(f"--{option}" for option in given) or "nothing"
        raise wrong_value(f"figure {figure.number}", f"be drawn from --{drawing.option}", got, f"e.g. {figure.command}")
    if output is None:
        raise wrong_value("--output", f"name a picture for figure {figure.number}", None, f"e.g. {figure.command}")
    check_file("--output", output, PICTURES)
    with replacing(output.resolve()) as temporary:
        drawing.draw(temporary, given[drawing.option], load)


def _draw_feature_maps(path: Path, models: Sequence[str], load: Load) -> None:
    """Figure 3, of the two photographs that no training here sees."""
    save_feature_maps(path, {label: load(name) for label, name in _labelled("--models", models)}, _photographs())


def _draw_resolutions(path: Path, results: Sequence[str], load: Load) -> None:
    """Figures 5 and 8, of results.json files or folders that have one."""
    save_resolution_curves(path, [read_results(Path(place).expanduser()) for place in results])


def _draw_gradients(path: Path, runs: Sequence[str], load: Load) -> None:
    """Figure 7, of runs whose metrics have the ratio."""
    folders = {label: RunFolder(Path(place).expanduser()) for label, place in _labelled("--runs", runs)}
    for folder in folders.values():
        if not folder.metrics.is_file():
            raise wrong_value("--runs", "name folders of runs", str(folder.path), f"it has no {folder.metrics.name}")
    save_gradient_ratio(path, {label: folder.read_metrics() for label, folder in folders.items()})


def _labelled(option: str, places: Sequence[str]) -> list[tuple[str, str]]:
    """(the last part of a name, the name); the whole name where two have the same last part."""
    if len(set(places)) < len(places):
        raise wrong_value(option, "name each once", " ".join(places))
    labels = [Path(place).expanduser().resolve().name for place in places]
    return list(zip(labels if len(set(labels)) == len(labels) else places, places, strict=True))


def _photographs() -> Tensor:
    """uint8 [2, 3, SIDE, SIDE]."""
    images, view = open_images("photographs"), protocol("ldm").view
    return torch.stack([view(image, SIDE) for _, image in images.read(range(len(images)))])


DRAWINGS: dict[int, Drawing] = {
    3: Drawing("models", _draw_feature_maps),
    5: Drawing("results", _draw_resolutions),
    7: Drawing("runs", _draw_gradients),
    8: Drawing("results", _draw_resolutions),
}
