"""The results of GroupNorm+SiLU, allocated: for the operators' fakes, and for the backends to fill."""

import torch
from torch import Tensor

from litevae_kernels.formats import arithmetic_dtype, memory_format_of


def empty_results(x: Tensor, num_groups: int, skip: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The output in the dtype and memory format of x, mean and rstd [B, G] in the dtype of the arithmetic."""
    return empty_output(x, skip), *empty_statistics(x, num_groups)


def empty_output(x: Tensor, skip: Tensor | None) -> Tensor:
    if skip is None:
        return torch.empty_like(x, memory_format=memory_format_of(x))
    batch, channels, height, width = x.shape
    shape = (batch, channels + skip.shape[1], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def empty_statistics(x: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    mean = x.new_empty((x.shape[0], num_groups), dtype=arithmetic_dtype(x.dtype))
    return mean, torch.empty_like(mean)


def empty_gradients(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, skip: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of (x, weight, bias, skip) in their dtypes; of an absent input an empty tensor of its own."""
    memory_format = memory_format_of(x)
    return (
        torch.empty_like(x, memory_format=memory_format),
        x.new_empty(0) if weight is None else torch.empty_like(weight, memory_format=torch.contiguous_format),
        x.new_empty(0) if bias is None else torch.empty_like(bias, memory_format=torch.contiguous_format),
        x.new_empty(0) if skip is None else torch.empty_like(skip, memory_format=memory_format),
    )
