"""How does quality change with the resolution? Every metric over the sides an autoencoder was measured at (Fig. 5, 8).

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [figures]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litevae.data.colour_profiles import srgb_profile
from litevae.evaluation.figures import BLUE, GRAY, GREEN, ORANGE, STYLE
from litevae.evaluation.report import check_comparable
from litevae_kernels.checks import wrong_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, "#7c3aed", "#dc2626", GRAY)
PANELS = (("rfid", "fwd"), ("psnr",), ("ssim",), ("lpips-vgg", "lpips-alex"))
"""Each panel shows the first of its metrics that every model has or, without one, that any has."""
_TITLES = {
    "rfid": "rFID ↓",
    "fwd": "FWD ↓",
    "psnr": "PSNR, dB ↑",
    "ssim": "SSIM ↑",
    "lpips-vgg": "LPIPS (VGG) ↓",
    "lpips-alex": "LPIPS (AlexNet) ↓",
}
"""With an arrow towards the better values."""


def save_resolution_curves(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """A panel for each metric: rFID or, where it is absent, FWD; PSNR, SSIM, LPIPS; a curve for each model.

    Args:
        path: an image file.
        results: documents of results.json, measured alike (`check_comparable`).

    Raises:
        ValueError: no model, more than there are colours, models that were not measured alike, or no metric at two
            sides.
    """
    import matplotlib

    if not 1 <= len(results) <= len(_COLOURS):
        raise wrong_value("results", f"be of 1 to {len(_COLOURS)} models", len(results))
    check_comparable(results)
    with matplotlib.rc_context(STYLE):
        _figure(results).savefig(path, dpi=130, pil_kwargs={"icc_profile": srgb_profile()})


def curve(results: Mapping[str, Any], metric: str) -> list[tuple[int, float]]:
    """(side in pixels, value) where the metric was measured, by ascending side."""
    sides = sorted((int(side), size["metrics"]) for side, size in results["sizes"].items())
    return [(side, metrics[metric]) for side, metrics in sides if metrics.get(metric) is not None]


def _metrics(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metric of each panel that has one."""
    chosen = []
    for names in PANELS:
        lengths = {name: [len(curve(model, name)) for model in results] for name in names}
        shared = [name for name in names if min(lengths[name]) > 1]
        known = [name for name in names if max(lengths[name]) > 1]
        chosen += [*shared, *known][:1]
    return chosen


def _figure(results: Sequence[Mapping[str, Any]]) -> "Figure":
    from matplotlib.figure import Figure

    metrics = _metrics(results)
    if not metrics:
        sides = sorted({side for model in results for side in model["sizes"]}, key=int)
        raise wrong_value("results", "have a metric at two sides or more", sides, "evaluate with --sizes 32,64,128,256")
    figure = Figure(figsize=(3.3 * len(metrics), 3.7), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for model, colour in zip(results, _COLOURS, strict=False):
            points = curve(model, metric)
            if points:
                style: Any = {"color": colour, "linewidth": 1.8, "marker": "o", "markersize": 4}
                axes.plot(*zip(*points, strict=True), label=model["model"]["label"], **style)
        _dress(axes, metric, sorted({side for model in results for side, _ in curve(model, metric)}))
    handles = {text: line for axes in panels for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False)
    data, protocol = results[0]["data"], results[0]["protocol"].get("name", "")
    figure.suptitle(f"{data['name']}, {data['images']:,} images, protocol {protocol}", x=0.01, ha="left", fontsize=10)
    return figure


def _dress(axes: "Axes", metric: str, sides: Sequence[int]) -> None:
    """Title, and a logarithmic axis with the sides that were measured."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_title(_TITLES[metric])
    axes.set_xlabel("side, pixels")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sides))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(0.08)
