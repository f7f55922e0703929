"""The public functions of self-modulated convolution: contract and checks.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder [SMC] -> losses
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litevae_kernels import checks, dispatch
from litevae_kernels.smc_conv2d import ops

# Asked at import: torch.compile of torch 2.11 cannot trace is_autocast_available.
_AUTOCAST_DEVICES = [name for name in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(name)]


def smc_conv2d(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    eps: float = 1e-8,
    backend: str | None = None,
) -> Tensor:
    """Self-modulated convolution, Eq. 3: one weight for the whole batch and one plain convolution.

    Equals `conv2d(x, smc_weight(weight, scales, gain), bias)`. The scales are parameters, the same for every sample, so
    the weight is modulated once, not for each sample.

    Args:
        x: [B, I, H, W], NCHW or channels_last, floating.
        weight: [O, I, kh, kw], floating; may have a higher precision than x (float32 master weights).
        scales: [I]. gain: a scalar, [] or [1], multiplied after demodulation. bias: [O].
        stride, padding: as in `torch.nn.functional.conv2d`.
        eps: added to the sum of squares, so that a row of zeros stays zero.
        backend: of the weight, as in `haar_dwt2d`. The convolution is PyTorch's.

    Returns:
        [B, O, H', W'] in the dtype of x (autocast's dtype where that is on).

    The weight is computed in float32 (float64 for a float64 weight) and rounded once to the dtype of the convolution.
    Differentiable twice in x, weight, scales, gain and bias. Deterministic where the convolution is. Inside torch.func
    (grad, vmap, jvp, ...) and with forward-mode tangents the reference computes the weight.

    Raises:
        TypeError, ValueError: an argument outside the above. RuntimeError: a named backend cannot run here.

    Example:
        >>> x, weight, scales = torch.randn(2, 8, 16, 16), torch.randn(4, 8, 3, 3), torch.ones(8)
        >>> smc_conv2d(x, weight, scales, padding=1).shape
        torch.Size([2, 4, 16, 16])
    """
    checks.check_floating_tensor("x", x)
    checks.check_rank("x", x, "[B, I, H, W]", "add a batch axis with x[None]")
    _check_parameters(weight, scales, gain, eps)
    if x.shape[1] != weight.shape[1]:
        raise checks.wrong_value("x", f"have {weight.shape[1]} channels, the weight's", x)
    checks.check_same_device("weight", weight, "x", x.device)
    if bias is not None:
        checks.check_floating_tensor("bias", bias)
        if bias.shape != weight.shape[:1]:
            raise checks.wrong_value("bias", f"have shape [{weight.shape[0]}]", bias)
    dtype = _convolution_dtype(x)
    modulated = dispatch.run(ops.smc_weight, backend, weight, scales, gain, eps, dtype)
    return F.conv2d(x, modulated, None if bias is None else bias.to(dtype), stride, padding)


def smc_weight(
    weight: Tensor,
    scales: Tensor,
    gain: Tensor | None = None,
    *,
    eps: float = 1e-8,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """The demodulated weight of Eq. 3, [O, I, kh, kw]: gain * s w / sqrt(sum over i,k of (s w)^2 + eps).

    Arguments as in `smc_conv2d`; `dtype` is the result's (None: the weight's), its memory format the weight's.
    Every output row has norm |gain|, or 0 for a row of zeros. At inference it can replace the weight of a plain
    convolution.

    Example:
        >>> row_norms = smc_weight(torch.randn(4, 8, 3, 3), torch.rand(8)).flatten(1).norm(dim=1)
        >>> torch.allclose(row_norms, torch.ones(4))
        True
    """
    _check_parameters(weight, scales, gain, eps)
    if dtype is not None:
        checks.check_dtype("dtype", dtype)
    return dispatch.run(ops.smc_weight, backend, weight, scales, gain, eps, dtype or weight.dtype)


def _convolution_dtype(x: Tensor) -> torch.dtype:
    """The dtype `conv2d` computes in: autocast's where that is on, which does not change float64."""
    device = x.device.type
    if x.dtype == torch.float64 or device not in _AUTOCAST_DEVICES:
        return x.dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _check_parameters(weight: Any, scales: Any, gain: Any, eps: Any) -> None:
    checks.check_floating_tensor("weight", weight)
    checks.check_rank("weight", weight, "[O, I, kh, kw]")
    if weight.numel() == 0:
        raise checks.wrong_value("weight", "have at least one element", weight)
    checks.check_floating_tensor("scales", scales)
    if scales.shape != weight.shape[1:2]:
        raise checks.wrong_value("scales", f"have shape [{weight.shape[1]}], one scale an input channel", scales)
    checks.check_same_device("scales", scales, "weight", weight.device)
    if gain is not None:
        checks.check_floating_tensor("gain", gain)
        if gain.numel() != 1:
            raise checks.wrong_value("gain", "have one element", gain)
        checks.check_same_device("gain", gain, "weight", weight.device)
    checks.check_number("eps", eps, above=0)
