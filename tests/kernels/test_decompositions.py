"""Are the formulas for export the operators: their values, shapes and dtypes, with every option that models use?"""

import inspect
from typing import Any

import pytest
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from litevae_kernels import export_decompositions, group_norm_silu, haar_dwt2d, haar_idwt2d, smc_weight

from .samples import assert_close

# torch.export's own, of Python's copyreg.
pytestmark = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OPERATORS = torch.ops.litevae_kernels
FORMULAS = export_decompositions()


def values(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


def both(operator: Any, *arguments: Any) -> tuple[Any, Any]:
    """What formula and operator give; in the same dtypes and shapes."""
    results = FORMULAS[operator](*arguments, None), operator(*arguments, None)
    formula, expected = ([result] if isinstance(result, Tensor) else list(result) for result in results)
    assert [(x.shape, x.dtype) for x in formula] == [(x.shape, x.dtype) for x in expected]
    return formula, expected


def test_every_forward_operator_has_a_formula_with_its_arguments() -> None:
    names = [name for name in torch.ops.litevae_kernels if not name.endswith("_backward")]
    assert set(FORMULAS) >= {getattr(OPERATORS, name).default for name in names}
    for operator, formula in FORMULAS.items():
        assert list(inspect.signature(formula).parameters) == [argument.name for argument in operator._schema.arguments]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8])
@pytest.mark.parametrize("size", [(16, 24), (13, 10), (1, 7)])
def test_dwt(dtype: torch.dtype, size: tuple[int, int]) -> None:
    is_pixels = dtype == torch.uint8
    image = (values(2, 3, *size) * 60 + 128).clamp(0, 255).to(dtype) if is_pixels else values(2, 3, *size, dtype=dtype)
    out = torch.float32 if is_pixels else dtype
    formula, _ = both(OPERATORS.haar_dwt2d.default, image, 3, 0.25, out, torch.channels_last)
    for band, exact in zip(formula, haar_dwt2d(image, 3, scaling="mean", dtype=torch.float64), strict=True):
        assert_close(band, exact)


def test_dwt_is_pywavelets() -> None:
    image = values(1, 1, 8, 12)
    [bands] = FORMULAS[OPERATORS.haar_dwt2d.default](image, 1, 0.5, torch.float64)
    low, details = pywt.dwt2(image[0, 0].numpy(), "haar")
    for band, expected in zip(bands[0], (low, *details), strict=True):
        torch.testing.assert_close(band, torch.from_numpy(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "levels"), [((16, 24), 1), ((16, 24), 3), ((13, 10), 2), ((1, 7), 2)])
def test_inverse(dtype: torch.dtype, size: tuple[int, int], levels: int) -> None:
    pyramid = [band.to(dtype) for band in haar_dwt2d(values(2, 3, *size), levels, scaling="mean")]
    [formula], _ = both(OPERATORS.haar_idwt2d.default, pyramid, *size, 1.0)
    assert_close(formula, haar_idwt2d([band.double() for band in pyramid], scaling="mean", size=size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("skip_channels", [0, 4])
@pytest.mark.parametrize("has_affine", [True, False])
def test_group_norm_silu(dtype: torch.dtype, skip_channels: int, has_affine: bool) -> None:
    """Float32 parameters with an x in half precision too; values whose squares float16 does not have."""
    channels, groups, eps = 8 + skip_channels, 4, 1e-6
    x = values(2, 8, 5, 6).mul(3e4 if dtype == torch.float16 else 1).clamp(-6e4, 6e4).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    skip = values(2, skip_channels, 5, 6, dtype=dtype) if skip_channels else None
    kind = dtype if dtype == torch.float64 else torch.float32
    weight, bias = (values(channels + i, dtype=kind)[i:] for i in (0, 1)) if has_affine else (None, None)
    (formula, mean, rstd), (_, means, rstds) = both(
        OPERATORS.group_norm_silu.default, x, groups, weight, bias, eps, skip
    )
    whole = (x if skip is None else torch.cat([x, skip], 1)).double()
    affine = [None if parameter is None else parameter.double() for parameter in (weight, bias)]
    assert_close(formula, F.silu(F.group_norm(whole, groups, *affine, eps)), scale=4)
    torch.testing.assert_close(mean, means, rtol=1e-5, atol=1e-5 * means.abs().max().item())
    torch.testing.assert_close(rstd, rstds, rtol=1e-5, atol=0)


def test_group_norm_silu_of_one_value_a_group() -> None:
    x = values(1, 4, 1, 1, dtype=torch.float32)
    formula, *_ = FORMULAS[OPERATORS.group_norm_silu.default](x, 4, None, torch.ones(4), 1e-6)
    rounding = 1e3 * x.abs().max().item() * torch.finfo(torch.float32).eps  # of mean * rstd, and rstd is 1 / sqrt(eps)
    torch.testing.assert_close(formula, group_norm_silu(x, 4, None, torch.ones(4)), rtol=0, atol=2 * rounding)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_gain", [True, False])
def test_smc_weight(dtype: torch.dtype, has_gain: bool) -> None:
    weight, scales = values(4, 6, 3, 3, dtype=dtype), values(6, dtype=dtype)
    weight[1] = 0.0
    gain = torch.tensor(1.7, dtype=dtype) if has_gain else None
    out = torch.float16 if dtype == torch.float32 else dtype
    [formula], _ = both(OPERATORS.smc_weight.default, weight, scales, gain, 1e-8, out)
    exact = smc_weight(weight.double(), scales.double(), None if gain is None else gain.double(), backend="reference")
    assert_close(formula, exact)


def test_nothing_of_this_package_is_left_in_a_graph() -> None:
    """Of all operators, at sizes that the graph does not know."""

    class Everything(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            bands, _ = haar_dwt2d(image, 2, scaling="mean")
            return haar_idwt2d(group_norm_silu(bands, 4) * smc_weight(bands[:, :, :1, :1], torch.ones(12)).sum())

    sides = {2: 4 * torch.export.Dim("h"), 3: 4 * torch.export.Dim("w")}
    program = torch.export.export(Everything(), (values(2, 3, 8, 12),), dynamic_shapes=(sides,))
    plain = program.run_decompositions(FORMULAS)
    assert any("litevae" in str(node.target) for node in program.graph.nodes)
    assert not any("litevae" in str(node.target) for node in plain.graph.nodes)
    image = values(2, 3, 20, 16)
    torch.testing.assert_close(plain.module()(image), Everything()(image))
