"""The results of GroupNorm+SiLU, allocated: for the operators' fakes, and for the backends to fill."""

import torch
from torch import Tensor

from litevae_kernels.formats import arithmetic_dtype, memory_format_of

Results = tuple[Tensor, Tensor | None, Tensor | None]  # output, mean, rstd


def empty_results(x: Tensor, num_groups: int, skip: Tensor | None, keeps_statistics: bool = True) -> Results:
    """The output in the dtype and memory format of x, mean and rstd [B, G] in the dtype of the arithmetic, if kept."""
    if skip is None:
        output = torch.empty_like(x, memory_format=memory_format_of(x))
    else:
        batch, channels, height, width = x.shape
        shape = (batch, channels + skip.shape[1], height, width)
        output = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    if not keeps_statistics:
        return output, None, None
    mean = x.new_empty((x.shape[0], num_groups), dtype=arithmetic_dtype(x.dtype))
    return output, mean, torch.empty_like(mean)


def fill_without_elements(results: Results, eps: float) -> Results:
    """`empty_results` whose output has no elements: mean and variance of each group are 0."""
    output, mean, rstd = results
    return output, None if mean is None else mean.fill_(0), None if rstd is None else rstd.fill_(eps**-0.5)


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
