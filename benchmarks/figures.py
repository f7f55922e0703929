"""The figures of the README, drawn from benchmarks/results alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litevae.evaluation.figures import BLUE, GRAY, GREEN, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES = ("#93c5fd", BLUE, GREEN, ORANGE, "#7c3aed", "#dc2626")  # of runs beside the first, which is gray
FAMILIES = {  # of a row's name: colour, marker, legend
    "ours": (BLUE, "o", "LiteVAE, this library"),
    "paper": (ORANGE, "D", "LiteVAE, the paper's Table 3"),
    "others": (GRAY, "s", "other encoders, here"),
}


def table3(document: Mapping[str, Any]) -> Figure:
    """Throughput against memory, both beside the VAE's, a panel for each precision."""
    import matplotlib
    from matplotlib.figure import Figure

    rows: dict[str, dict[str, Any]] = {}
    for row in document["rows"]:
        name, _, dtype = row["row"].rpartition(", ")
        rows.setdefault(dtype, {})[name] = row
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4 * len(rows), 4.6), layout="constrained")
        panels: Any = figure.subplots(1, len(rows), sharex=True, sharey=True, squeeze=False)
        for axes, (dtype, dtype_rows) in zip(panels[0], rows.items(), strict=True):
            _table3_panel(axes, dtype_rows)
            axes.set_title(dtype)
            axes.set_xlabel("memory / SD-VAE encoder's")
        panels[0][0].set_ylabel("throughput / SD-VAE encoder's")
        panels[0][0].legend(loc="lower left", frameon=False, fontsize=9)
        of = document["conditions"]
        figure.suptitle(f"Encoders at {document['settings']['resolution']}: {of['machine']}", fontsize=10)
    return figure


def _table3_panel(axes: Axes, rows: Mapping[str, Mapping[str, Any]]) -> None:
    from matplotlib.ticker import LogLocator

    points: dict[str, list[tuple[str, float, float]]] = {family: [] for family in FAMILIES}
    for name, row in rows.items():
        if (
            name.startswith("DWT") or row.get("speed_to_vae") is None or row.get("live_to_vae") is None
        ):  # far from all others
            continue
        family = "ours" if name.startswith("LiteVAE") and "paper" not in name else "others"
        points[family].append((name.removeprefix("LiteVAE-"), row["live_to_vae"], row["speed_to_vae"]))
        if row.get("paper_mb_to_vae") is not None and name != "VAE":
            short = name.removeprefix("LiteVAE-")
            points["paper"].append((short, row["paper_mb_to_vae"], row["paper_speed_to_vae"]))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axhline(1, color=GRAY, linewidth=0.8, zorder=1)
    axes.axvline(1, color=GRAY, linewidth=0.8, zorder=1)
    for family, (colour, marker, legend) in FAMILIES.items():
        names, x, y = zip(*points[family], strict=True) if points[family] else ((), (), ())
        filled = "none" if family == "paper" else colour
        axes.scatter(x, y, s=42, marker=marker, facecolors=filled, edgecolors=colour, label=legend, zorder=3)
        for name, at_x, at_y in zip(names, x, y, strict=True):
            # L is almost where M is, and the VAE where it is in channels_last.
            x_offset, side = (-6, "right") if family == "paper" or name == "VAE" else (6, "left")
            offset = (x_offset, -9 if name in ("L", "VAE") else 4)
            axes.annotate(name, (at_x, at_y), offset, textcoords="offset points", fontsize=8, color=colour, ha=side)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.margins(0.16)


def _growth(document: Mapping[str, Any]) -> Figure:
    from benchmarks import bench_growth  # which needs diffusers

    return bench_growth.figure(document)


def comparison(document: Mapping[str, Any]) -> Figure:
    """Held-out PSNR of each run of benchmarks/comparison.py, over steps and over the time that training took."""
    import matplotlib
    from matplotlib.figure import Figure

    batch = int(str(document["settings"]["batch"]).split()[0])
    colours = dict(zip((row["row"] for row in document["rows"]), (GRAY, *_SERIES), strict=False))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        over_steps, over_time = figure.subplots(1, 2, sharey=True)
        for row in document["rows"]:
            steps, decibels = zip(*row["curve"], strict=True)
            minutes = [step * batch / row["images_per_second"] / 60 for step in steps]
            style: Any = {"color": colours[row["row"]], "linewidth": 1.8, "marker": "o", "markersize": 3.5}
            over_steps.plot(steps, decibels, label=f"{row['row']} {decibels[-1]:.2f}", **style)
            over_time.plot(minutes, decibels, **style)
        over_steps.set(xlabel="step", title="Held-out PSNR (dB)")
        over_time.set(xlabel="minutes of training", title="The same, over time")
        over_steps.legend(loc="lower right", frameon=False, fontsize=9)
        figure.suptitle(f"Same decoder, data, losses, steps; {document['conditions']['machine']}", fontsize=10)
    return figure


def comparison_encoders(document: Mapping[str, Any]) -> Figure:
    """Each encoder's quality after the same time, a panel for each metric: dots for the seeds, a bar for their mean."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = document["rows"][::-1]  # from the bottom up
    metrics = {"psnr": "PSNR, dB (more is better)", "ssim": "SSIM (more)", "fwd": "FWD (less)"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.2 + 0.42 * len(rows)), layout="constrained")
        panels: Any = figure.subplots(1, len(metrics), sharey=True)
        for axes, (metric, title) in zip(panels, metrics.items(), strict=True):
            for place, row in enumerate(rows):
                seeds = row[f"{metric}_seeds"]
                axes.plot(seeds, [place] * len(seeds), "o", color=BLUE, markersize=5, alpha=0.6)
                axes.plot(row[metric], place, "|", color=ORANGE, markersize=16, markeredgewidth=2.5)
            axes.set_title(title, fontsize=10)
            axes.margins(0.1)
        panels[0].set_yticks(range(len(rows)), [row["row"] for row in rows])
        figure.suptitle(f"Steps: {document['settings']['steps']}; {document['conditions']['machine']}", fontsize=10)
    return figure


def diffusion_step(document: Mapping[str, Any]) -> Figure:
    """Arithmetic and time of a step, the network's part and the encoder's."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = document["rows"][::-1]  # from the bottom up
    names = [row["row"] for row in rows]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.7 + 0.5 * len(rows)), layout="constrained")
        arithmetic, time = figure.subplots(1, 2, sharey=True)
        network, encoder = [row["network_gmac"] for row in rows], [row.get("encoder_gmac") or 0.0 for row in rows]
        seconds, share = [row["seconds"] for row in rows], [row.get("time_share") or 0.0 for row in rows]
        own = [taken * (1 - part) for taken, part in zip(seconds, share, strict=True)]
        for axes, first, second, spec in (
            (arithmetic, network, encoder, "{:.0f}"),
            (time, own, [taken - part for taken, part in zip(seconds, own, strict=True)], "{:.2f}"),
        ):
            axes.barh(names, first, color=GRAY, label="network, forward and backward")
            axes.barh(names, second, left=first, color=BLUE, label="encoder")
            totals = [sum(pair) for pair in zip(first, second, strict=True)]
            for place, total in enumerate(totals):
                axes.annotate(spec.format(total), (total, place), (4, 0), textcoords="offset points", va="center")
            axes.set_xlim(0, 1.15 * max(totals))
            axes.grid(axis="y", visible=False)
        arithmetic.set(title="GMAC of a step, an image", xlabel="GMAC")
        time.set(title="Seconds of a step", xlabel="s")
        parts = arithmetic.get_legend_handles_labels()
        figure.legend(*parts, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        figure.suptitle(f"{document['settings']['images']}; {document['conditions']['machine']}", fontsize=10)
    return figure


def write(folder: Path) -> list[Path]:
    """Draws every figure whose results are in `folder`, beside them."""
    paths = []
    drawings = {
        "table3_encoders": table3,
        "growth": _growth,
        "comparison": comparison,
        "comparison_encoders": comparison_encoders,
        "diffusion_step": diffusion_step,
    }
    for table, draw in drawings.items():
        for source in sorted(folder.glob(f"{table}-*.json")):
            path = source.with_suffix(".png")
            draw(json.loads(source.read_text(encoding="utf-8"))).savefig(path, dpi=150)
            paths.append(path)
    return paths
