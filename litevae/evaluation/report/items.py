"""How do the pictures of several results come together in one gallery?"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from litevae.data import UnreadableImageError, read_image
from litevae.evaluation.report.gallery import RANKS
from litevae.evaluation.report.tables import Cell, compared
from litevae.evaluation.report.wording import metric_header, metric_name


class Embedded(NamedTuple):
    """A picture in the page itself."""

    uri: str
    width: int
    height: int


Picture = Embedded | str
"""A text says why there is no picture."""


@dataclass(frozen=True)
class Shown:
    """What one model made of an image."""

    name: str
    series: int
    scores: list[tuple[str, Cell]]
    reconstruction: Picture
    error: Picture
    latent: Picture | None


@dataclass(frozen=True)
class Item:
    """An image of the gallery."""

    name: str
    ranks: list[str]
    original: Picture
    models: list[Shown]


class _Entry(NamedTuple):
    series: int
    folder: Path
    item: dict[str, Any]


def gallery(results: Sequence[tuple[Path, dict[str, Any]]], names: Sequence[str]) -> list[tuple[int, list[Item]]]:
    """(size, its images from the worst to the best), the largest size first; an image comes once for all models."""
    found: dict[int, dict[int, list[_Entry]]] = {}
    for series, (folder, result) in enumerate(results):
        for item in result["gallery"]:
            images = found.setdefault(item["size"], {})
            images.setdefault(item["index"], []).append(_Entry(series, folder, item))
    return [
        (size, [_item(entries, names) for entries in sorted(found[size].values(), key=_order)])
        for size in sorted(found, reverse=True)
    ]


def _order(entries: list[_Entry]) -> int:
    """As the first model ranks it; unknown ranks come last."""
    rank = entries[0].item["rank"]
    return RANKS.index(rank) if rank in RANKS else len(RANKS)


def _item(entries: list[_Entry], names: Sequence[str]) -> Item:
    metrics = list(dict.fromkeys(metric for entry in entries for metric in entry.item["scores"]))
    columns = [compared(metric, [entry.item["scores"].get(metric) for entry in entries]) for metric in metrics]
    originals = [_picture(entry, "original") for entry in entries]
    ranks: dict[str, list[str]] = {}  # "worst by PSNR" -> models
    for entry in entries:
        ranks.setdefault(f"{entry.item['rank']} by {metric_name(entry.item['by'])}", []).append(names[entry.series])
    return Item(
        entries[0].item["name"],
        [rank if len(models) == len(names) else f"{rank}: {', '.join(models)}" for rank, models in ranks.items()],
        next((picture for picture in originals if isinstance(picture, Embedded)), originals[0]),
        [
            Shown(
                names[entry.series],
                entry.series,
                [(metric_header(metric), column[place]) for metric, column in zip(metrics, columns, strict=True)],
                _picture(entry, "reconstruction"),
                _picture(entry, "error"),
                None if entry.item.get("latent") is None else _picture(entry, "latent"),
            )
            for place, entry in enumerate(entries)
        ],
    )


def _picture(entry: _Entry, kind: str) -> Picture:
    path = entry.item.get(kind)
    if path is None:
        return "not saved"
    try:
        return embed(entry.folder / path)
    except UnreadableImageError as error:
        return f"{path}: {error.reason}"


def embed(path: Path) -> Embedded:
    """An image file as a data: URI, as lossless WebP: every pixel is as it was, in about 2/3 of PNG's bytes.

    Raises:
        UnreadableImageError: it is missing, or not an image.
    """
    picture = read_image(path, warn=False)
    content = io.BytesIO()
    picture.save(content, "WEBP", lossless=True, quality=90)  # quality: of the search for a smaller file
    uri = f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
    return Embedded(uri, picture.width, picture.height)
