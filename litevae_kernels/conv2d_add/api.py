"""The public function `conv2d_add`: contract, checks, choice of implementation."""

from torch import Tensor

from litevae_kernels import checks
from litevae_kernels.conv2d_add import onednn, reference


def conv2d_add(
    residual: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """residual + conv2d(x, weight, bias, padding=padding), without a pass over memory for the sum where oneDNN can.

    Args:
        residual: [B, O, H', W'], the shape of the convolution's result (stride 1); it is not written to.
        x: [B, I, H, W], floating, any memory format. weight: [O, I, kh, kw]. bias: [O].
        padding: zeros on each side of both axes, or of rows and of columns.

    Returns:
        [B, O, H', W'] in the dtype that PyTorch gives the sum, and in conv2d's memory format where that dtype is
        conv2d's and residual's. Differentiable in every tensor as often as conv2d is.
        On a CPU, without gradients, for float32 or bfloat16 in channels_last, the sum is rounded once.

    Raises:
        TypeError, ValueError: an argument outside the above.

    Example:
        >>> x, weight = torch.randn(2, 8, 16, 16), torch.randn(4, 8, 3, 3)
        >>> conv2d_add(torch.ones(2, 4, 16, 16), x, weight, padding=1).shape
        torch.Size([2, 4, 16, 16])
    """
    for name, value in (("residual", residual), ("x", x), ("weight", weight)):
        checks.check_floating_tensor(name, value)
    checks.check_rank("x", x, "[B, I, H, W]", "add a batch axis with x[None]")
    checks.check_rank("weight", weight, "[O, I, kh, kw]")
    if bias is not None:
        checks.check_floating_tensor("bias", bias)
        if bias.shape != weight.shape[:1]:
            raise checks.wrong_value("bias", f"have shape [{weight.shape[0]}]", bias)
    pads = _checked_padding(padding)
    batch, channels, height, width = x.shape
    out_channels, in_channels, kernel_height, kernel_width = weight.shape
    if channels != in_channels:
        raise checks.wrong_value("x", f"have {in_channels} channels, the weight's", x)
    sides = height + 2 * pads[0] - kernel_height + 1, width + 2 * pads[1] - kernel_width + 1
    if residual.shape != (batch, out_channels, *sides):
        raise checks.wrong_value("residual", f"have the convolution's shape {[batch, out_channels, *sides]}", residual)
    if onednn.can_run(residual, x, weight, bias):
        return onednn.conv2d_add(residual, x, weight, bias, pads)
    return reference.conv2d_add(residual, x, weight, bias, pads)


def _checked_padding(padding: int | tuple[int, int]) -> tuple[int, int]:
    """Of rows and of columns."""
    if not isinstance(padding, tuple):
        checks.check_int("padding", padding, at_least=0)
        return padding, padding
    if len(padding) != 2:
        raise checks.wrong_value("padding", "have two entries, for rows and for columns", padding)
    for axis, pad in enumerate(padding):
        checks.check_int(f"padding[{axis}]", pad, at_least=0)
    return padding
