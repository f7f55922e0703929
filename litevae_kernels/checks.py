"""The checks of arguments, and the only wording of their errors.

Every message reads "<argument> must <rule>, got <value>", then "; <way out>" where there is one to name. A wrong kind
of thing is a TypeError, a wrong value a ValueError.
"""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

FLOATING_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPE_RULE = "float64, float32, float16 or bfloat16"


def describe(value: Any) -> str:
    """A short rendering of `value` for an error message: shape and dtype for a tensor, never its contents."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def wrong_kind(argument: str, rule: str, value: Any, way_out: str = "") -> TypeError:
    return TypeError(_message(argument, rule, value, way_out))


def wrong_value(argument: str, rule: str, value: Any, way_out: str = "") -> ValueError:
    return ValueError(_message(argument, rule, value, way_out))


def _message(argument: str, rule: str, value: Any, way_out: str) -> str:
    message = f"{argument} must {rule}, got {describe(value)}"
    return f"{message}; {way_out}" if way_out else message


def check_floating_tensor(argument: str, value: Any, way_out: str = "") -> None:
    if not isinstance(value, Tensor):
        raise wrong_kind(argument, "be a torch.Tensor", value, way_out)
    if value.dtype not in FLOATING_DTYPES:
        raise wrong_kind(argument, f"have dtype {DTYPE_RULE}", value, way_out or "convert it with .float()")


def check_rank(argument: str, value: Tensor, shape: str, way_out: str = "") -> None:
    """`shape` is the documented one, e.g. "[B, C, H, W]"; its commas give the rank."""
    if value.ndim != shape.count(",") + 1:
        raise wrong_value(argument, f"have shape {shape}", value, way_out)


def check_dtype(argument: str, value: Any) -> None:
    if not isinstance(value, torch.dtype):
        raise wrong_kind(argument, "be a torch.dtype or None", value)
    if value not in FLOATING_DTYPES:
        raise wrong_value(argument, f"be {DTYPE_RULE}", value)


def check_int(argument: str, value: Any, at_least: int, at_most: int | None = None, way_out: str = "") -> None:
    """Accepts int and SymInt (dynamic shapes under torch.compile), refuses bool."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise wrong_kind(argument, "be an int", value, way_out)
    if value < at_least or (at_most is not None and value > at_most):
        limits = f"at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise wrong_value(argument, f"be {limits}", value, way_out)


def checked_ints(argument: str, values: Any, at_least: int, way_out: str = "") -> tuple[int, ...]:
    """`values` as a tuple: a list or tuple of one int or more, each of them at least `at_least`."""
    if not isinstance(values, (list, tuple)):
        raise wrong_kind(argument, "be a list or tuple of ints", values, way_out)
    if not values:
        raise wrong_value(argument, "have at least one entry", values, way_out)
    for index, value in enumerate(values):
        check_int(f"{argument}[{index}]", value, at_least, way_out=way_out)
    return tuple(values)


def check_number(
    argument: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    way_out: str = "",
) -> None:
    """Accepts a finite int or float within the bounds that are given, refuses bool, infinities and NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_kind(argument, "be a number", value, way_out)
    if (
        -math.inf < value < math.inf  # False for NaN; torch.compile cannot trace math.isfinite
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
    ):
        return
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    limits = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    if len(limits) < 2:
        limits.insert(0, "finite")
    raise wrong_value(argument, f"be {' and '.join(limits)}", value, way_out)


def check_flag(argument: str, value: Any, or_none: bool = False, way_out: str = "") -> None:
    if not (isinstance(value, bool) or (or_none and value is None)):
        raise wrong_kind(argument, "be True, False or None" if or_none else "be True or False", value, way_out)


def check_choice(argument: str, value: Any, choices: Collection[str], way_out: str = "") -> None:
    """Accepts the strings of `choices` (keys of a dict will do); another kind of thing is a TypeError."""
    if isinstance(value, str) and value in choices:
        return
    error = wrong_value if isinstance(value, str) else wrong_kind
    raise error(argument, f"be one of {', '.join(map(repr, choices))}", value, way_out)


def check_same_device(argument: str, value: Tensor, other: str, device: torch.device) -> None:
    if value.device != device:
        raise wrong_value(
            argument, f"be on the device of {other}, {device}", str(value.device), f'move it with .to("{device}")'
        )
