"""What is a metric called, which direction is better, and how is a value written?"""

import html
import json
import math
import re
from collections.abc import Sequence
from typing import Any

_NAMES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "ms-ssim": "MS-SSIM",
    "lpips": "LPIPS",
    "dists": "DISTS",
    "rfid": "rFID",
    "fid": "FID",
    "kid": "KID",
    "fwd": "FWD",
    "mmd": "MMD",
    "teacher-mse": "Error to teacher",
}
_UNITS = {"psnr": "dB"}
_DECIMALS = {"psnr": 2, "ssim": 4, "ms-ssim": 4, "lpips": 4, "dists": 4, "rfid": 2, "fid": 2}
_HIGHER = {"psnr", "ssim", "ms-ssim"}
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def higher_is_better(metric: str) -> bool:
    """PSNR and SSIM; all others are distances."""
    return _base(metric) in _HIGHER


def metric_name(metric: str) -> str:
    """ "lpips-vgg" -> "LPIPS (vgg)"."""
    base = _base(metric)
    variant = metric[len(base) :].strip("-_: ")
    return _NAMES.get(base, base) + (f" ({variant})" if variant else "")


def metric_header(metric: str) -> str:
    """Name and unit, and an arrow towards the better values."""
    unit = f" [{_UNITS[_base(metric)]}]" if _base(metric) in _UNITS else ""
    return f"{metric_name(metric)}{unit} {'↑' if higher_is_better(metric) else '↓'}"


def metric_value(metric: str, value: Any) -> str:
    """With as many decimals as are usual for this metric, else four digits."""
    decimals = _DECIMALS.get(_base(metric))
    if decimals is None and isinstance(value, float) and math.isfinite(value):
        return f"{value:#.4g}".rstrip(".")
    return number(value, decimals)


def _base(metric: str) -> str:
    known = [name for name in _NAMES if metric == name or re.match(rf"{re.escape(name)}[-_: ]", metric)]
    return max(known, key=len, default=metric)


def number(value: Any, decimals: int | None = None) -> str:
    """A number of a table; NaN, infinities and None too. Without `decimals` four digits."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"


def aligned(values: Sequence[float | None]) -> list[str]:
    """The numbers of a column, with as many decimals for all as give the largest four digits, at most six."""
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    decimals = min(max(3 - math.floor(math.log10(largest)), 0), 6) if largest else 0
    return [number(value if value is None else float(value), decimals) for value in values]


def anything(value: Any) -> str:
    """Any JSON value as text; nothing is left out."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
        return json.dumps(value, ensure_ascii=False)
    return number(value)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested objects as one level: {"machine": {"cpu": "x"}} -> {"machine.cpu": "x"}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = anything(value)
    return flat


def visible(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes of a file's name that were none are written \\udcXX; no control characters."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.encode("utf-8", "backslashreplace").decode("utf-8"))


def markdown_cell(value: Any) -> str:
    """Any text within a line or a table of Markdown, where it means nothing but itself."""
    text = html.escape(visible(" ".join(str(value).split())), quote=False)
    return re.sub(r"[\\`*\[|]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
