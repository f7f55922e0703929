"""The public function of GroupNorm+SiLU: contract and checks.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses
"""

from typing import Any

from torch import Tensor

from litevae_kernels import checks, dispatch
from litevae_kernels.group_norm_silu import ops


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
    *,
    skip: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """SiLU of GroupNorm, fused, of x or of concat(x, skip), which is never made. eps is 1e-6, not PyTorch's 1e-5.

    1e-6 is the value of Stable Diffusion's autoencoder (LDM), which LiteVAE's ResNet blocks follow (Appendix G); pass
    eps=1e-5 to match the default of `torch.nn.functional.group_norm`. With xhat = (x - mean) / sqrt(var + eps) over
    each group of a sample and z = weight xhat + bias, the result is z sigmoid(z).

    Args:
        x: [B, C1, H, W], any strides; float64, float32, float16 or bfloat16, any range. Tensors that are neither NCHW
            nor channels_last are copied first.
        num_groups: a divisor of the number of channels, C1 + C2. A group may have channels of both x and skip.
        weight, bias: [C1 + C2], of any floating dtype (float32 master weights for a half x). None: 1 and 0.
        eps: added to the variance, above 0.
        skip: [B, C2, H, W] of x's dtype. Its channels follow x's, as in `torch.cat([x, skip], dim=1)`. None: C2 is 0.
        backend: as in `haar_dwt2d`.

    Returns:
        [B, C1 + C2, H, W] in the dtype of x, contiguous in its memory format (channels_last if it is, else NCHW).

    Statistics and arithmetic are float32 (float64 for a float64 x), with one rounding at the end. The variance is
    biased and computed about the mean, so that a large mean costs it no accuracy. Differentiable twice in x, weight,
    bias and skip. Deterministic. Autocast does not change the dtype. Inside torch.func (grad, vmap, jvp, ...) and with
    forward-mode tangents the reference runs, in NCHW.

    Raises:
        TypeError, ValueError: an argument outside the above. RuntimeError: a named backend cannot run here.

    Example:
        >>> x, skip = torch.randn(2, 8, 16, 16), torch.randn(2, 4, 16, 16)
        >>> expected = torch.nn.functional.silu(torch.nn.functional.group_norm(torch.cat([x, skip], dim=1), 3))
        >>> torch.allclose(group_norm_silu(x, 3, eps=1e-5, skip=skip), expected, atol=1e-5)
        True
    """
    checks.check_floating_tensor("x", x)
    checks.check_rank("x", x, "[B, C, H, W]", "add a batch axis with x[None]")
    _check_channels("x", x)
    channels = x.shape[1]
    if skip is not None:
        _check_skip(skip, x)
        channels = channels + skip.shape[1]
    checks.check_int("num_groups", num_groups, 1)
    if channels % num_groups:
        raise checks.wrong_value("num_groups", f"divide the number of channels, {channels}", num_groups)
    _check_parameter("weight", weight, channels, x)
    _check_parameter("bias", bias, channels, x)
    checks.check_number("eps", eps, above=0)
    output, _, _ = dispatch.run(ops.group_norm_silu, backend, x, num_groups, weight, bias, eps, skip)
    return output


def _check_channels(name: str, x: Tensor) -> None:
    if x.shape[1] < 1:
        raise checks.wrong_value(name, "have at least one channel", x)


def _check_skip(skip: Any, x: Tensor) -> None:
    checks.check_floating_tensor("skip", skip)
    checks.check_rank("skip", skip, "[B, C, H, W]")
    if skip.dtype != x.dtype:
        raise checks.wrong_kind("skip", f"have the dtype of x, {x.dtype}", skip, f"convert it with .to({x.dtype})")
    if skip.shape[0] != x.shape[0] or skip.shape[2:] != x.shape[2:]:
        batch, _, height, width = x.shape
        raise checks.wrong_value("skip", f"have shape [{batch}, C2, {height}, {width}], as x", skip)
    _check_channels("skip", skip)
    checks.check_same_device("skip", skip, "x", x.device)


def _check_parameter(name: str, value: Any, channels: int, x: Tensor) -> None:
    if value is None:
        return
    checks.check_floating_tensor(name, value)
    if value.ndim != 1 or value.shape[0] != channels:
        raise checks.wrong_value(name, f"have shape [{channels}], one a channel", value)
    checks.check_same_device(name, value, "x", x.device)
