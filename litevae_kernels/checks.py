"""How is an argument refused? The only wording of argument errors.

Every message reads "<argument> must <rule>, got <value>", then the way out. A wrong kind of thing is a
TypeError, a wrong value a ValueError.
"""

import math
from collections.abc import Sequence
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


def check_int(argument: str, value: Any, at_least: int, at_most: int | None = None) -> None:
    """Accepts int and SymInt (dynamic shapes under torch.compile), refuses bool."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise wrong_kind(argument, "be an int", value)
    if value < at_least or (at_most is not None and value > at_most):
        limits = f"at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise wrong_value(argument, f"be {limits}", value)


def check_positive_float(argument: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_kind(argument, "be a float", value)
    if not 0 < value < math.inf:  # NaN is neither; math.isfinite cannot be traced by torch.compile
        raise wrong_value(argument, "be finite and above 0", value)


def check_choice(argument: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise wrong_value(argument, f"be one of {', '.join(map(repr, choices))}", value)


def check_same_device(argument: str, value: Tensor, other: str, device: torch.device) -> None:
    if value.device != device:
        raise wrong_value(
            argument, f"be on the device of {other}, {device}", str(value.device), f'move it with .to("{device}")'
        )
