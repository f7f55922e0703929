"""Is every wrong argument refused, in the same words by every function and on every backend?"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch

from litevae_kernels import checks, group_norm_silu, haar_dwt2d, haar_idwt2d, smc_conv2d, smc_weight
from litevae_kernels.checks import DTYPE_RULE


class BadInput(NamedTuple):
    """A call that must raise `error`, whose text begins with the whole words of `message`."""

    call: Callable[[], object]
    error: type[Exception]
    message: str


def bad_inputs(backend: str | None = None) -> dict[str, BadInput]:
    """Every kind of wrong argument by name, the same for all backends."""
    image, weight, scales = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.ones(3)
    level1, level2 = haar_dwt2d(image, 2)

    def dwt(*args: object, **options: object) -> Callable[[], object]:
        return lambda: haar_dwt2d(*args, backend=backend, **options)  # type: ignore[arg-type]

    def idwt(*args: object, **options: object) -> Callable[[], object]:
        return lambda: haar_idwt2d(*args, backend=backend, **options)  # type: ignore[arg-type]

    def conv(*args: object, **options: object) -> Callable[[], object]:
        return lambda: smc_conv2d(*args, backend=backend, **options)  # type: ignore[arg-type]

    def weights(*args: object, **options: object) -> Callable[[], object]:
        return lambda: smc_weight(*args, backend=backend, **options)  # type: ignore[arg-type]

    def norm(*args: object, **options: object) -> Callable[[], object]:
        return lambda: group_norm_silu(*args, backend=backend, **options)  # type: ignore[arg-type]

    return {
        "image is a list": BadInput(dwt([1.0]), TypeError, "image must be a torch.Tensor"),
        "image is int32": BadInput(
            dwt(image.int()),
            TypeError,
            "image must have dtype float64, float32, float16, bfloat16 or uint8, got a torch.int32 tensor",
        ),
        "image of rank 3": BadInput(dwt(image[0]), ValueError, "image must have shape [B, C, H, W]"),
        "image without rows": BadInput(dwt(image[:, :, :0]), ValueError, "image must have H and W of at least 1"),
        "levels 0": BadInput(dwt(image, 0), ValueError, "levels must be from 1 to 16, got 0"),
        "levels 17": BadInput(dwt(image, 17), ValueError, "levels must be from 1 to 16, got 17"),
        "levels is a float": BadInput(dwt(image, 2.0), TypeError, "levels must be an int"),
        "levels is a bool": BadInput(dwt(image, True), TypeError, "levels must be an int"),
        "scaling": BadInput(
            dwt(image, scaling="unit"), ValueError, "scaling must be one of 'orthonormal', 'mean', got 'unit'"
        ),
        "dtype": BadInput(dwt(image, dtype=torch.int32), ValueError, f"dtype must be {DTYPE_RULE}"),
        "memory_format is a str": BadInput(
            dwt(image, memory_format="channels_last"), TypeError, "memory_format must be a torch.memory_format"
        ),
        "memory_format of videos": BadInput(
            dwt(image, memory_format=torch.channels_last_3d),
            ValueError,
            "memory_format must be one of torch.preserve_format, torch.contiguous_format, torch.channels_last, got",
        ),
        "pyramid is a dict": BadInput(idwt({}), TypeError, "pyramid must be a tensor or a sequence of tensors"),
        "pyramid is empty": BadInput(idwt(()), ValueError, "pyramid must have 1 to 16 levels"),
        "pyramid of 3 channels": BadInput(
            idwt(image), ValueError, "pyramid[0] must have shape [B, 4C, h, w] with h and w at least 1"
        ),
        "pyramid coarsest first": BadInput(
            idwt((level2, level1)), ValueError, "pyramid[1] must have shape [1, 12, 1, 1], half of pyramid[0]"
        ),
        "pyramid of two dtypes": BadInput(
            idwt((level1, level2.double())), TypeError, "pyramid[1] must have the dtype of pyramid[0], torch.float32"
        ),
        "size too small": BadInput(
            idwt(level1, size=(6, 8)), ValueError, "size[0] must be 7 or 8, twice the side of pyramid[0], got 6"
        ),
        "size is an int": BadInput(idwt(level1, size=8), TypeError, "size must be a pair (H, W)"),
        "x channels": BadInput(conv(image[:, :2], weight, scales), ValueError, "x must have 3 channels, the weight's"),
        "x is an int tensor": BadInput(
            conv(image.long(), weight, scales), TypeError, f"x must have dtype {DTYPE_RULE}"
        ),
        "bias": BadInput(conv(image, weight, scales, None, torch.ones(3)), ValueError, "bias must have shape [4]"),
        "weight of rank 2": BadInput(
            weights(weight[0, 0], scales), ValueError, "weight must have shape [O, I, kh, kw]"
        ),
        "weight is empty": BadInput(weights(weight[:0], scales), ValueError, "weight must have at least one element"),
        "scales": BadInput(
            weights(weight, torch.ones(4)), ValueError, "scales must have shape [3], one scale an input channel"
        ),
        "gain": BadInput(weights(weight, scales, torch.ones(2)), ValueError, "gain must have one element"),
        "gain is a float": BadInput(weights(weight, scales, 1.0), TypeError, "gain must be a torch.Tensor"),
        "eps 0": BadInput(weights(weight, scales, eps=0.0), ValueError, "eps must be finite and above 0"),
        "eps nan": BadInput(weights(weight, scales, eps=float("nan")), ValueError, "eps must be finite and above 0"),
        "norm of an int tensor": BadInput(norm(image.int(), 1), TypeError, f"x must have dtype {DTYPE_RULE}"),
        "norm of rank 3": BadInput(norm(image[0], 1), ValueError, "x must have shape [B, C, H, W]"),
        "norm without channels": BadInput(norm(image[:, :0], 1), ValueError, "x must have at least one channel"),
        "num_groups 0": BadInput(norm(image, 0), ValueError, "num_groups must be at least 1, got 0"),
        "num_groups 2 of 3": BadInput(
            norm(image, 2), ValueError, "num_groups must divide the number of channels, 3, got 2"
        ),
        "num_groups is a float": BadInput(norm(image, 3.0), TypeError, "num_groups must be an int, got 3.0"),
        "norm weight": BadInput(norm(image, 3, scales[:2]), ValueError, "weight must have shape [3], one a channel"),
        "norm weight of rank 2": BadInput(
            norm(image, 3, scales[None]), ValueError, "weight must have shape [3], one a channel"
        ),
        "norm bias": BadInput(
            norm(image, 3, None, scales, skip=image), ValueError, "bias must have shape [6], one a channel"
        ),
        "norm bias is a float": BadInput(norm(image, 3, scales, 1.0), TypeError, "bias must be a torch.Tensor"),
        "norm weight elsewhere": BadInput(
            norm(image, 3, scales.to("meta")), ValueError, "weight must be on the device of x, cpu"
        ),
        "norm eps 0": BadInput(norm(image, 3, eps=0.0), ValueError, "eps must be finite and above 0"),
        "skip is a list": BadInput(norm(image, 3, skip=[1.0]), TypeError, "skip must be a torch.Tensor"),
        "skip of rank 3": BadInput(norm(image, 3, skip=image[0]), ValueError, "skip must have shape [B, C, H, W]"),
        "skip in half": BadInput(
            norm(image, 3, skip=image.half()), TypeError, "skip must have the dtype of x, torch.float32"
        ),
        "skip size": BadInput(
            norm(image, 3, skip=image[..., :4]), ValueError, "skip must have shape [1, C2, 8, 8], as x"
        ),
        "skip batch": BadInput(norm(image, 3, skip=image[:0]), ValueError, "skip must have shape [1, C2, 8, 8], as x"),
        "skip without channels": BadInput(
            norm(image, 3, skip=image[:, :0]), ValueError, "skip must have at least one channel"
        ),
        "skip elsewhere": BadInput(
            norm(image, 3, skip=image.to("meta")), ValueError, "skip must be on the device of x, cpu"
        ),
    }


@pytest.mark.parametrize("name", sorted(bad_inputs()))
def test_bad_input(backend: str, name: str) -> None:
    bad = bad_inputs(backend)[name]
    with pytest.raises(bad.error) as raised:
        bad.call()
    assert re.match(rf"{re.escape(bad.message)}(?!\w)", str(raised.value))


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (lambda: checks.check_int("n", True, 1), TypeError, "n must be an int, got True"),
        (lambda: checks.check_int("n", 0, 1, way_out="do"), ValueError, "n must be at least 1, got 0; do"),
        (lambda: checks.check_int("n", 9, 1, 8), ValueError, "n must be from 1 to 8, got 9"),
        (lambda: checks.checked_ints("n", 1, 1), TypeError, "n must be a list or tuple of ints, got 1"),
        (lambda: checks.checked_ints("n", (), 1), ValueError, "n must have at least one entry, got ()"),
        (lambda: checks.checked_ints("n", [1, 0], 1), ValueError, "n[1] must be at least 1, got 0"),
        (lambda: checks.check_number("p", "1"), TypeError, "p must be a number, got '1'"),
        (lambda: checks.check_number("p", False), TypeError, "p must be a number, got False"),
        (lambda: checks.check_number("p", math.nan), ValueError, "p must be finite, got nan"),
        (lambda: checks.check_number("p", -math.inf), ValueError, "p must be finite, got -inf"),
        (lambda: checks.check_number("p", math.inf, above=0), ValueError, "p must be finite and above 0, got inf"),
        (lambda: checks.check_number("p", 0, above=0), ValueError, "p must be finite and above 0, got 0"),
        (
            lambda: checks.check_number("p", 1, at_least=0, below=1),
            ValueError,
            "p must be at least 0 and below 1, got 1",
        ),
        (
            lambda: checks.check_number("p", 1.5, above=0, at_most=1),
            ValueError,
            "p must be above 0 and at most 1, got 1.5",
        ),
        (lambda: checks.check_number("p", -1, at_least=0), ValueError, "p must be finite and at least 0, got -1"),
        (lambda: checks.check_flag("f", 1), TypeError, "f must be True or False, got 1"),
        (lambda: checks.check_flag("f", "no", or_none=True), TypeError, "f must be True, False or None, got 'no'"),
        (lambda: checks.check_choice("c", "z", {"x": 1, "y": 2}), ValueError, "c must be one of 'x', 'y', got 'z'"),
        (lambda: checks.check_choice("c", ["x"], ("x",)), TypeError, "c must be one of 'x', got ['x']"),
    ],
)
def test_the_wording_of_a_check(check: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        check()
    assert str(raised.value) == message


def test_what_a_check_accepts() -> None:
    checks.check_int("n", 8, 1, 8)
    checks.check_number("p", 0, at_least=0, at_most=0)
    checks.check_number("p", np.float64(0.5), above=0, below=1)
    checks.check_flag("f", None, or_none=True)
    checks.check_choice("c", "x", {"x": 1})
    assert checks.checked_ints("n", [1, 2], 1) == (1, 2)
