"""What is shown of `details`: channels of latents, spectra, equivariance, MMD; any other key is listed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from litevae.evaluation.report.charts import Chart, Curve, line_chart
from litevae.evaluation.report.results import is_number
from litevae.evaluation.report.tables import Cell, Row, Table, keys_table
from litevae.evaluation.report.wording import aligned, anything, flatten

_CHANNEL_COLUMNS = {
    "channel_means": "Mean",
    "channel_stds": "Std",
    "kurtosis": "Kurtosis",
    "posterior_stds": "Posterior std",
    "kl": "KL",
}
_MMD_COLUMNS = {"sigma", "mean", "std", "gaussian_mean", "gaussian_std", "printed"}
_TITLES = {
    "statistics": "Channels of the latent",
    "spectrum": "Spectrum",
    "equivariance": "Equivariance error",
    "mmd": "MMD to a Gaussian",
}


@dataclass(frozen=True)
class Heat:
    """The correlation of every channel with every other."""

    title: str
    rows: list[list[float]]
    series: int
    numbers: bool
    """There are few enough channels for their numbers."""


@dataclass
class Panel:
    """All that is shown of one entry of `details`, for all models."""

    title: str
    note: str = ""
    charts: list[Chart] = field(default_factory=list)
    dashed: str = ""
    """What a dashed line is."""
    heats: list[Heat] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


Details = dict[str, Any]


def panels(details: Sequence[Details], names: Sequence[str]) -> list[Panel]:
    """The panels of one size; `details` and `names` have an entry for each model."""
    known = {"statistics": _statistics, "spectrum": _spectrum, "equivariance": _equivariance, "mmd": _mmd}
    keys = dict.fromkeys([*known, *(key for detail in details for key in detail)])
    found = []
    for key in keys:
        if all(detail.get(key) in (None, {}, []) for detail in details):
            continue
        panel = Panel(_TITLES.get(key, key))
        values = [detail.get(key) for detail in details]
        parts = [dict(value) if isinstance(value, dict) else {} if value is None else {key: value} for value in values]
        if key in known:
            known[key](panel, parts, names)  # takes from `parts` what it shows
        rest = keys_table("Other values" if panel.tables or panel.charts else "", [*map(flatten, parts)], names)
        panel.tables.extend([rest] if rest is not None else [])
        found.append(panel)
    return found


def _statistics(panel: Panel, parts: list[Details], names: Sequence[str]) -> None:
    """A table of channels for every model, and the correlation of channels."""
    for series, (name, part) in enumerate(zip(names, parts, strict=True)):
        columns = {key: part[key] for key in _CHANNEL_COLUMNS if _is_vector(part.get(key))}
        columns |= {key: part[key] for key in part if key not in columns and _is_vector(part[key])}
        longest = max(map(len, columns.values()), default=0)
        columns = {key: part.pop(key) for key, column in columns.items() if len(column) == longest}
        if columns:
            texts = map(aligned, columns.values())
            rows = [Row(str(channel), list(map(Cell, row))) for channel, row in enumerate(zip(*texts, strict=True))]
            header = ["Channel", *(_CHANNEL_COLUMNS.get(key, key) for key in columns)]
            panel.tables.append(Table(name if len(names) > 1 else "By channel", header, [("", rows)]))
        correlation = part.get("correlation")
        if (
            isinstance(correlation, list)
            and correlation
            and all(_is_vector(row, len(correlation)) for row in correlation)
        ):
            title = f"Correlation of channels{f', {name}' if len(names) > 1 else ''}"
            panel.heats.append(Heat(title, part.pop("correlation"), series, len(correlation) <= 8))


def _spectrum(panel: Panel, parts: list[Details], names: Sequence[str]) -> None:
    """Power over bins of frequency, of the latents and, dashed, of the images."""
    curves = [
        Curve(f"latents of {name}" if len(names) > 1 else "latents", _numbered(part["latent"]), series)
        for series, (name, part) in enumerate(zip(names, parts, strict=True))
        if _is_vector(part.get("latent"))
    ]
    image = next((part["image"] for part in parts if _is_vector(part.get("image"))), None)
    curves += [] if image is None else [Curve("images", _numbered(image), None)]
    bins = max((len(curve.points) for curve in curves), default=0)
    ticks = [1.0, *(float(tick) for tick in range(4, bins + 1, 4))]
    chart = line_chart("Normalised power", "bin of frequency, from low to high", curves, ticks, log_y=True)
    if chart is None:
        return
    panel.charts.append(chart)
    panel.dashed = "images" if image is not None else ""
    for part in parts:
        if _is_vector(part.get("latent")):
            del part["latent"]
        if image is not None and part.get("image") == image:  # all saw the same images
            del part["image"]


def _numbered(values: list[float]) -> list[tuple[float, float]]:
    return [(float(index), value) for index, value in enumerate(values, start=1)]


def _equivariance(panel: Panel, parts: list[Details], names: Sequence[str]) -> None:
    """A row for each transformation."""
    keys = dict.fromkeys(key for part in parts for key in part if is_number(part[key]))
    rows = [Row(key, [Cell(anything(part.pop(key, None))) for part in parts]) for key in keys]
    if rows:
        panel.tables.append(Table("", ["Transformation", *_columns(names, "Error")], [("", rows)]))


def _mmd(panel: Panel, parts: list[Details], names: Sequence[str]) -> None:
    """A row for each kernel's width: every model, a true Gaussian's samples, and what the paper's Table 6 prints."""
    tables: list[dict[str, Details]] = []
    for part in parts:
        listed = part.pop("rows") if _is_rows(part.get("rows")) else []
        tables.append({anything(row.get("sigma")): row for row in listed})
        for sigma, row in tables[-1].items():
            part |= {f"sigma {sigma}, {key}": value for key, value in row.items() if key not in _MMD_COLUMNS}
    every = [row for table in tables for row in table.values()]
    printed = dict.fromkeys(key for row in every if isinstance(row.get("printed"), dict) for key in row["printed"])
    rows = []
    for sigma in dict.fromkeys(sigma for table in tables for sigma in table):
        found = [table.get(sigma, {}) for table in tables]
        paper: dict[str, Any] = next((row["printed"] for row in found if isinstance(row.get("printed"), dict)), {})
        cells = [_spread(row.get("mean"), row.get("std")) for row in found]
        gaussian = dict.fromkeys(_spread(row.get("gaussian_mean"), row.get("gaussian_std")) for row in found if row)
        cells += ["; ".join(gaussian), *(anything(paper.get(key)) for key in printed)]
        rows.append(Row(sigma, [Cell(text) for text in cells]))
    if rows:
        header = ["sigma", *_columns(names, "Latents"), "Gaussian", *(f"{key}, paper" for key in printed)]
        panel.tables.append(Table("", header, [("", rows)]))
        panel.note = "“Paper” is what its Table 6 prints." if printed else ""


def _columns(names: Sequence[str], alone: str) -> Sequence[str]:
    return names if len(names) > 1 else [alone]


def _spread(mean: Any, std: Any) -> str:
    return anything(mean) + (f" ± {anything(std)}" if std is not None else "")


def _is_vector(value: Any, length: int | None = None) -> bool:
    """A list of numbers, NaN and infinities among them."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and length in (None, len(value))
        and all(isinstance(entry, (int, float)) and not isinstance(entry, bool) for entry in value)
    )


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)
