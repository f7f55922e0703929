"""How are statistics, spectrum, equivariance and MMD of latents, and a teacher's, shown, of one model or of several?

The keys are those of `values()` in evaluation/latents.py, spectrum.py, equivariance.py, mmd.py and teacher.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from litevae.evaluation.report.charts import Chart, Curve, line_chart
from litevae.evaluation.report.results import is_number
from litevae.evaluation.report.tables import Cell, Row, Table
from litevae.evaluation.report.wording import aligned, anything, metric_value

BY_CHANNEL = "By channel"
"""How the caption of a table of channels begins."""
_CHANNEL_COLUMNS = {
    "channel_means": "Mean",
    "channel_stds": "Std",
    "stds_of_means": "Std of means",
    "posterior_stds": "Posterior std",
    "channel_kl": "KL [nats]",
    "skewness": "Skewness",
    "excess_kurtosis": "Excess kurtosis",
    "channel_relative_mse": "Relative MSE",
    "channel_cosine": "Cosine",
    "channel_kl_from_teacher": "KL(teacher || student) [nats]",
}
_COSTS = {
    "encoder_parameters": "Parameters of the encoder",
    "encoded_images_per_second": "Encoded images per second",
    "encoding_memory_mb": "Memory of encoding [MB]",
}
_POWERS = ("radius", "latent_power", "image_power")
_ERRORS = {"squared": "Squared error", "relative": "Relative error"}
_PAPER = {"sd-vae": "SD-VAE, paper", "litevae": "LiteVAE, paper"}
_MMD_COLUMNS = {"sigma", "mmd", "mmd_plus_minus", "gaussian", "gaussian_plus_minus", "paper"}


@dataclass(frozen=True)
class Heat:
    """The correlation of every channel with every other."""

    title: str
    rows: list[list[float | None]]
    numbers: bool
    """There are few enough channels for their numbers."""
    covariance: list[list[float | None]] | None


@dataclass
class Panel:
    """All that is shown of one entry of `details`, for the models that have it."""

    title: str
    names: Sequence[str]
    series: Sequence[int]
    """Which model's colour each of them has."""
    note: str = ""
    charts: list[Chart] = field(default_factory=list)
    dashed: str = ""
    """What a dashed line is."""
    heats: list[Heat] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


Details = dict[str, Any]


def show_statistics(panel: Panel, parts: list[Details]) -> None:
    """A table of channels for every model, and the correlation of channels."""
    for name, part in zip(panel.names, parts, strict=True):
        of = f", {name}" if len(panel.names) > 1 else ""
        columns = {key: part[key] for key in _CHANNEL_COLUMNS if _is_vector(part.get(key))}
        columns |= {key: part[key] for key in part if key not in columns and _is_vector(part[key])}
        longest = max(map(len, columns.values()), default=0)
        columns = {key: part.pop(key) for key, column in columns.items() if len(column) == longest}
        if columns:
            texts = map(aligned, columns.values())
            rows = [Row(str(channel), list(map(Cell, row))) for channel, row in enumerate(zip(*texts, strict=True))]
            header = ["Channel", *(_CHANNEL_COLUMNS.get(key, key) for key in columns)]
            panel.tables.append(Table(BY_CHANNEL + of, header, [("", rows)]))
        if _is_square(part.get("correlation")):
            correlation, covariance = part.pop("correlation"), None
            if _is_square(part.get("covariance"), len(correlation)):
                covariance = part.pop("covariance")
            few = len(correlation) <= 8
            panel.heats.append(Heat(f"Correlation of channels{of}", correlation, few, covariance))


def show_teacher(panel: Panel, parts: list[Details]) -> None:
    """A table of channels, and what encoding costs, the student's value before the teacher's."""
    show_statistics(panel, parts)
    for part in parts:
        for cost, text in _COSTS.items():
            if isinstance(part.get(cost), dict):
                part |= {f"{text}, {name}": value for name, value in part.pop(cost).items()}


def show_spectrum(panel: Panel, parts: list[Details]) -> None:
    """Power over frequency, of the latents and, dashed, of the images; the slopes of channels."""
    slopes = [part.pop("channel_slopes") if _is_vector(part.get("channel_slopes")) else [] for part in parts]
    curves, image_curves = [], {}
    for series, name, part in zip(panel.series, panel.names, parts, strict=True):
        if _is_spectrum(part):
            label = f"latents of {name}" if len(panel.names) > 1 else "latents"
            curves.append(Curve(label, list(zip(part["radius"], part["latent_power"], strict=True)), series))
            images = list(zip(part["radius"], part["image_power"], strict=True))
            image_curves[str(images)] = Curve("images", images, None)  # one, where all saw the same
    every = [*curves, *image_curves.values()]
    radii = [x for curve in every for x, _ in curve.points if is_number(x)]
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if tick >= min(radii, default=0)]
    axis = "radius of the frequency, 1 is the highest"
    chart = line_chart("Part of the power by frequency", axis, every, ticks, log_x=True, log_y=True)
    if chart is not None:
        panel.charts.append(chart)
        panel.dashed = "images"
        panel.note = "Power of the 2D DCT in 16 bins, without the mean. A slope is that of log power over log radius."
        for part in filter(_is_spectrum, parts):
            for key in _POWERS:
                del part[key]
    if any(slopes):
        cells = [aligned(values) + ["-"] * (max(map(len, slopes)) - len(values)) for values in slopes]
        rows = [Row(str(channel), list(map(Cell, row))) for channel, row in enumerate(zip(*cells, strict=True))]
        panel.tables.append(Table(BY_CHANNEL, ["Channel", *_columns(panel.names, "Slope")], [("", rows)]))


def show_equivariance(panel: Panel, parts: list[Details]) -> None:
    """A row for each transformation; of several models first their relative errors, then their squared ones."""
    kinds = dict.fromkeys(key for part in parts for key, value in part.items() if _is_errors(value))
    found = [{kind: part.pop(kind) if _is_errors(part.get(kind)) else {} for kind in kinds} for part in parts]
    if not kinds:
        return

    def row(kind: str, cells: list[Any]) -> Row:
        return Row(kind.capitalize(), [Cell(metric_value("equivariance", value)) for value in cells])

    if len(panel.names) == 1:
        rows = [row(kind, [found[0][kind][error] for error in _ERRORS]) for kind in kinds]
        panel.tables.append(Table("", ["Transformation", *_ERRORS.values()], [("", rows)]))
    else:
        groups = [
            (title, [row(kind, [one[kind].get(error) for one in found]) for kind in kinds])
            for error, title in reversed(_ERRORS.items())
        ]
        panel.tables.append(Table("", ["Transformation", *panel.names], groups))
    panel.note = (
        "Of each image x with the latent z, decode(T z) against T x, for a rotation by 90, 180 or 270 degrees and a "
        "scale from 1/4 to 31/32. Squared: in [-1, 1]. Relative: its root over the image's standard deviation; a flat "
        "image has 1."
    )


def show_mmd(panel: Panel, parts: list[Details]) -> None:
    """A row for each kernel's width: every model, what 0 looks like, and what the paper's Table 6 prints."""
    tables = [_by_sigma(part) for part in parts]
    sigmas = list(dict.fromkeys(sigma for table in tables for sigma in table))
    if not sigmas:
        return
    columns = [_spreads(table, sigmas, "mmd") for table in tables]
    zeros = [_spreads(table, sigmas, "gaussian") for table in tables]
    has_one_zero = all(zero == zeros[0] for zero in zeros)
    columns += zeros[:1] if has_one_zero else zeros
    header = [
        "sigma",
        *_columns(panel.names, "Latents"),
        *(["Zero"] if has_one_zero else [f"Zero, {name}" for name in panel.names]),
    ]
    papers = {sigma: table[sigma]["paper"] for table in tables for sigma in table if "paper" in table[sigma]}
    for key in dict.fromkeys(key for paper in papers.values() for key in paper):
        header.append(_PAPER.get(key, f"{key}, paper"))
        columns.append([_printed(papers.get(sigma, {}).get(key)) for sigma in sigmas])
    rows = [Row(f"{sigma:g}", list(map(Cell, row))) for sigma, *row in zip(sigmas, *columns, strict=True)]
    panel.tables.append(Table("", header, [("", rows)]))
    panel.note = "Zero: one draw of the Gaussian against another. Paper: what its Table 6 prints." if papers else ""


def _by_sigma(part: Details) -> dict[float, Details]:
    """sigma -> its row, which are taken from `part` where they are what mmd.py writes."""
    rows = part.get("rows")
    if not isinstance(rows, list) or not all(map(_is_mmd, rows)):
        return {}
    for row in part.pop("rows"):
        part |= {f"sigma {row['sigma']:g}, {key}": value for key, value in row.items() if key not in _MMD_COLUMNS}
    return {row["sigma"]: row for row in rows}


def _spreads(table: dict[float, Details], sigmas: Sequence[float], key: str) -> list[str]:
    """ "1.44 ± 0.28" for each sigma."""
    means, spreads = ([table.get(sigma, {}).get(name) for sigma in sigmas] for name in (key, f"{key}_plus_minus"))
    texts = aligned([*means, *spreads])
    return [
        "-" if mean == "-" else f"{mean} ± {spread}"
        for mean, spread in zip(texts[: len(means)], texts[len(means) :], strict=True)
    ]


def _printed(value: Any) -> str:
    """The paper has two decimals."""
    return f"{value[0]:.2f} ± {value[1]:.2f}" if _is_vector(value, 2) and None not in value else anything(value)


def _columns(names: Sequence[str], alone: str) -> Sequence[str]:
    return names if len(names) > 1 else [alone]


def _is_float(value: Any) -> bool:
    """A number, NaN and infinities among them, or None, which stands for them in JSON."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _is_vector(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list) and len(value) > 0 and length in (None, len(value)) and all(map(_is_float, value))


def _is_square(value: Any, side: int | None = None) -> bool:
    return isinstance(value, list) and side in (None, len(value)) and all(_is_vector(row, len(value)) for row in value)


def _is_spectrum(part: Details) -> bool:
    vectors = [part.get(key) for key in _POWERS]
    return all(_is_vector(vector) for vector in vectors) and len({len(vector) for vector in vectors if vector}) == 1


def _is_errors(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == _ERRORS.keys() and all(map(_is_float, value.values()))


def _is_mmd(row: Any) -> bool:
    """A row as mmd.py writes it, "paper" where there is one."""
    return (
        isinstance(row, dict)
        and is_number(row.get("sigma"))
        and all(_is_float(row.get(key)) for key in _MMD_COLUMNS - {"sigma", "paper"})
        and isinstance(row.get("paper", {}), dict)
    )
