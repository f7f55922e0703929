"""How do the adversarial and the reconstruction gradient compare over a run? The paper's Figure 7.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [figure]
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litevae.evaluation.figures import BLUE, GRAY, GREEN, ORANGE, STYLE, label_ends, save_figure
from litevae_kernels.checks import wrong_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_gradient_ratio(path: Path, runs: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Figure 7: the norm of the adversarial over that of the reconstruction gradient, of runs {label: metrics lines}.

    Steps whose line has no ratio, such as those without a discriminator, are left out.

    Raises:
        ValueError: no line of a run has a ratio.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        save_figure(_gradient_ratio(runs), path)


def _gradient_ratio(runs: Mapping[str, Sequence[dict[str, Any]]]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title("Gradient at the decoder's last layer: adversarial / reconstruction")
    ends = []
    for (label, lines), colour in zip(runs.items(), itertools.cycle((BLUE, ORANGE, GREEN, GRAY))):
        measured = ((line["step"], line.get("gradient_ratio", {}).get("adversarial")) for line in lines)
        points = [(step, ratio) for step, ratio in measured if ratio]  # neither null, which was infinite, nor 0
        if not points:
            rule, way_out = "hold lines with gradient_ratio", "train with train.gradient_ratio_every above 0"
            raise wrong_value(f"runs[{label!r}]", rule, 0, way_out)
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8)
        ends.append((points[-1], f"{label} {points[-1][1]:.3g}", colour))
    axes.set(xlabel="step", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    label_ends(axes, ends)
    return figure
