"""Figures of a run: latents as colours, the grid of held-out images, the curves of losses and PSNR.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [figures]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from litevae.data.colour_profiles import srgb_profile
from litevae.data.images import to_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from litevae.evaluation.held_out import Evaluation, Measured

BLUE, ORANGE, GREEN, GRAY = "#2563eb", "#d97706", "#059669", "#6b7280"
_INK, _GRID = "#1f2430", "#e5e7eb"
_COLOURS = {
    "total": _INK,
    "l1": BLUE,
    "perceptual": "#7c3aed",
    "wavelet": ORANGE,
    "gaussian": GREEN,
    "kl": "#9ca3af",
    "discriminator": "#dc2626",
    "mean": BLUE,  # of a distillation, as the next two
    "logvar": ORANGE,
    "reconstruction": GREEN,
}
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": GRAY,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def latent_to_rgb(latent: Tensor) -> Tensor:
    """The first three channels of a latent [C, h, w] as colours [3, h, w] in [-1, 1] (the paper's Fig. 2 and 4).

    Each channel is stretched from its 1st to its 99th percentile. With fewer than three channels the last one is
    repeated.
    """
    channels = latent.detach().float().cpu()[:3]
    channels = torch.cat([channels, channels[-1:].expand(3 - len(channels), -1, -1)])
    low, high = np.percentile(channels.flatten(1).numpy(), (1, 99), axis=1)
    low, high = (torch.from_numpy(bound).float().view(3, 1, 1) for bound in (low, high))
    return ((channels - low) / (high - low).clamp_min(1e-8)).clamp(0, 1) * 2 - 1


def save_reconstruction_grid(
    path: Path, evaluation: "Evaluation", title: str, limit: int = 8, raw: "Evaluation | None" = None
) -> None:
    """A row for each held-out image: original, reconstruction with its PSNR, first three latent channels as RGB.

    `raw`: an evaluation of the weights themselves, where `evaluation` is of their moving average; it gets a column.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        save_figure(_reconstruction_grid(evaluation, title, limit, raw), path)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write it as a PNG in sRGB."""
    figure.savefig(path, dpi=130, pil_kwargs={"icc_profile": srgb_profile()})


def _reconstruction_grid(evaluation: "Evaluation", title: str, limit: int, raw: "Evaluation | None") -> "Figure":
    from matplotlib.figure import Figure

    raws = {} if raw is None else {image.name: image for image in raw.images}
    rows = [image for image in evaluation.images if raw is None or image.name in raws][:limit]
    column, caption, gap, header = 4.0, 0.34, 0.12, 0.62  # inches
    heights = [column * row.original.shape[-2] / row.original.shape[-1] for row in rows]
    columns = 3 if raw is None else 4
    width, total = columns * column + (columns + 1) * gap, header + sum(heights) + len(rows) * (caption + gap)
    figure = Figure(figsize=(width, total))
    figure.text(gap / width, 1 - 0.40 / total, title, fontsize=15, fontweight="bold", va="center")
    top = total - header
    for row, height in zip(rows, heights, strict=True):
        panels = _panels(row, raws.get(row.name))
        top -= caption
        for index, (image, head, detail) in enumerate(panels):
            left = gap + index * (column + gap)
            axes = figure.add_axes((left / width, (top - height) / total, column / width, height / total))
            axes.imshow(np.asarray(to_image(image)), interpolation="nearest" if head == "latent" else "antialiased")
            axes.set_axis_off()
            label = axes.annotate(
                head, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontweight="bold"
            )
            axes.annotate(detail, (1, 0), (7, 0), xycoords=label, textcoords="offset points", color=GRAY)
        top -= height + gap
    return figure


def _panels(row: "Measured", raw: "Measured | None") -> list[tuple[Tensor, str, str]]:
    """(image, head, detail) of a row of the grid."""
    assert row.latent is not None
    name = str(Path(row.name).with_suffix(""))
    average = "" if raw is None else " of the averaged weights"
    reconstructions = [(row, f"reconstruction{average} · SSIM {row.ssim:.3f}")]
    if raw is not None:
        reconstructions.insert(0, (raw, f"reconstruction · SSIM {raw.ssim:.3f}"))
    return [
        (row.original, name, "original"),
        *((measured.reconstruction, f"{measured.psnr:.2f} dB", detail) for measured, detail in reconstructions),
        (latent_to_rgb(row.latent), "latent", f"{'x'.join(map(str, row.latent.shape))}, first three channels"),
    ]


def save_curves(path: Path, metrics: Sequence[dict[str, Any]], baseline_psnr: float) -> None:
    """The losses and the held-out PSNR over the steps of a run, from the lines of its metrics.jsonl."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        save_figure(_curves(metrics, baseline_psnr), path)


def draw_losses(axes: Any, training: Sequence[dict[str, Any]]) -> None:
    """The losses of the "train" lines of a metrics.jsonl over the steps, each named where it ends."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_title("Training losses")
    ends = []
    for name in training[-1]["loss"] if training else ():
        points = [(line["step"], line["loss"][name]) for line in training if (line["loss"].get(name) or 0) > 0]
        if points:
            axes.plot(*zip(*points, strict=True), color=_COLOURS.get(name, GRAY), linewidth=1.8)
            ends.append((points[-1], f"{name} {points[-1][1]:.3g}", _COLOURS.get(name, GRAY)))
    axes.set(xlabel="step", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    label_ends(axes, ends)


def _curves(metrics: Sequence[dict[str, Any]], baseline_psnr: float) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    training = [line for line in metrics if line["kind"] == "train"]
    evaluations = [line for line in metrics if line["kind"] == "evaluation"]

    draw_losses(losses, training)

    quality.set_title("Held-out PSNR (dB)")
    steps, decibels = [line["step"] for line in evaluations], [line["psnr"] for line in evaluations]
    quality.hlines(baseline_psnr, 0, max(steps, default=1), color=GRAY, linestyle=(0, (4, 3)), linewidth=1.2)
    quality.plot(steps, decibels, color=_COLOURS["l1"], linewidth=1.8, marker="o", markersize=4)
    quality.set(xlabel="step")
    quality.margins(y=0.12)
    last = [((steps[-1], decibels[-1]), f"LiteVAE {decibels[-1]:.2f}", _COLOURS["l1"])] if steps else []
    label_ends(quality, [*last, ((max(steps, default=1), baseline_psnr), f"bicubic {baseline_psnr:.2f}", GRAY)])
    for axes in (losses, quality):
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def label_ends(axes: "Axes", ends: Sequence[tuple[tuple[float, float], str, str]], height: float = 13.0) -> None:
    """Name each line at its right end instead of in a legend, `height` points apart where lines end close together."""
    points_per_pixel = 72 / axes.figure.dpi
    axes.autoscale_view()
    lowest = -float("inf")
    for end, text, colour in sorted(ends, key=lambda item: item[0][1]):
        at = axes.transData.transform(end)[1] * points_per_pixel
        lowest = max(at, lowest + height)
        axes.annotate(
            text,
            end,
            (7, lowest - at),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
