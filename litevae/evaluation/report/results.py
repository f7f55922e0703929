"""Is this a results.json that can be shown, and which of them can be compared?"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from litevae_kernels.checks import wrong_value

FORMAT = 1
NAME = "results.json"
PICTURES = ("original", "reconstruction", "error", "latent")
_CHOICES = {"name", "resize", "crop", "rounding", "latent"}  # of a protocol; what else it has is of a metric
_AGAIN = "evaluate again with this version"
_KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
_NEEDED: dict[str, type] = {
    "model": dict,
    "data": dict,
    "protocol": dict,
    "sizes": dict,
    "unavailable": dict,
    "gallery": list,
    "versions": dict,
    "command": list,
    "date": str,
}


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a results.json, or the one in the folder `path`, and check it (`check_results`).

    The pictures that its gallery names are not looked for: a page without them still has its numbers.

    Raises:
        ValueError: it is not JSON, of another format, or a key is missing or of another kind; the key is named.
        OSError: there is no such file.
    """
    path = Path(path)
    file = path / NAME if path.is_dir() else path
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: also not UTF-8
        raise ValueError(f"{file} must be JSON, got {error}; {_AGAIN}") from None
    check_results(results, str(file))
    return results


def check_results(results: Any, name: str = NAME) -> None:
    """Raise a ValueError, which calls `results` `name`, unless they are results of format 1.

    Model, data, protocol, metrics and the gallery's paths are checked, what `details` and `versions` hold is not.
    """
    _check(name, results, dict)
    if results.get("format") != FORMAT:
        raise wrong_value(f"{name}: format", f"be {FORMAT}", results.get("format"), _AGAIN)
    for key, kind in _NEEDED.items():
        _check(f"{name}: {key}", results.get(key), kind)
    for section, keys in (("model", ("label",)), ("data", ("name", "hash"))):
        for key in keys:
            _check(f"{name}: {section}.{key}", results[section].get(key), str)
    for section in ("protocol", "unavailable"):
        for key, value in results[section].items():
            _check(f"{name}: {section}.{key}", value, str)
    for size, measured in results["sizes"].items():
        _check_size(f"{name}: sizes.{size}", size, measured)
    for index, item in enumerate(results["gallery"]):
        _check_item(f"{name}: gallery[{index}]", item)


def _check(argument: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise wrong_value(argument, f"be {_KINDS[kind]}", value, _AGAIN)


def _check_size(argument: str, size: str, measured: Any) -> None:
    if not (size.isascii() and size.isdecimal() and int(size) > 0):
        raise wrong_value(argument, "be named by the side in pixels", size, _AGAIN)
    _check(argument, measured, dict)
    _check(f"{argument}.images", measured.get("images"), int)
    _check_numbers(f"{argument}.metrics", measured.get("metrics"))
    _check(f"{argument}.details", measured.get("details", {}), dict)
    _check(f"{argument}.warnings", measured.get("warnings", []), list)


def _check_item(argument: str, item: Any) -> None:
    _check(argument, item, dict)
    for key, kind in (("name", str), ("rank", str), ("by", str), ("index", int), ("size", int)):
        _check(f"{argument}.{key}", item.get(key), kind)
    _check_numbers(f"{argument}.scores", item.get("scores"))
    for picture in PICTURES:
        path = item.get(picture)
        if path is not None:
            _check(f"{argument}.{picture}", path, str)
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path or ":" in path:
                raise wrong_value(f"{argument}.{picture}", "be a path within the folder of results.json", path, _AGAIN)


def _check_numbers(argument: str, values: Any) -> None:
    _check(argument, values, dict)
    for metric, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_value(f"{argument}.{metric}", "be a number", value, _AGAIN)


def check_comparable(results: Sequence[dict[str, Any]]) -> None:
    """Raise a ValueError that names the first difference unless all were measured alike.

    Alike: the same protocol, choice by choice, the same data by their hash, and as many images at the same sizes. The
    choices of a metric that only some have, as a baseline without latents has none of theirs, are not compared.
    """
    names = labels(results)
    conditions = [_conditions(result) for result in results]
    for key in dict.fromkeys(key for one in conditions for key in one):
        having = [place for place, one in enumerate(conditions) if key in one]
        first, others = (having[0], having) if _is_of_metric(key) else (0, range(len(results)))
        here = conditions[first].get(key, "nothing")
        for place in others:
            there = conditions[place].get(key, "nothing")
            if here != there:
                raise ValueError(
                    f"{key} must be the same in all results that are compared, got {here!r} of {names[first]} and "
                    f"{there!r} of {names[place]}; evaluate both alike"
                )


def _is_of_metric(key: str) -> bool:
    section, _, choice = key.partition(".")
    return section == "protocol" and choice not in _CHOICES


def _conditions(results: dict[str, Any]) -> dict[str, Any]:
    sizes = results["sizes"]
    return {
        **{f"protocol.{key}": value for key, value in results["protocol"].items()},
        "sizes": sorted(map(int, sizes)),
        **{f"sizes.{size}.images": measured["images"] for size, measured in sizes.items()},
        "data.hash": results["data"]["hash"],  # last: another protocol or size changes it too
    }


def labels(results: Sequence[dict[str, Any]]) -> list[str]:
    """What the models are called, each name once: a label that comes again gets a number."""
    names: list[str] = []
    for result in results:
        label, number = result["model"]["label"] or "model", 2
        name = label
        while name in names:
            name, number = f"{label} ({number})", number + 1
        names.append(name)
    return names


def sizes_of(results: Sequence[dict[str, Any]]) -> list[str]:
    """The keys of `sizes`, ascending by their number of pixels."""
    return sorted({size for result in results for size in result["sizes"]}, key=int)


def is_number(value: Any) -> bool:
    """A finite int or float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
