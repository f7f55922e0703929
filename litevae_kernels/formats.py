"""The dtype of the arithmetic, and the memory format of the results."""

import torch
from torch import Tensor


def arithmetic_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """float64 where any of the inputs or the result is, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def memory_format_of(x: Tensor) -> torch.memory_format:
    """channels_last for a tensor that is dense in that order and not in NCHW order as well, else contiguous.

    Contiguous inside torch.func, where vmap does not allow the question.
    """
    if x.is_contiguous() or torch._C._are_functorch_transforms_active():
        return torch.contiguous_format
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def stored(x: Tensor, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    """x rounded to `dtype`, dense in `memory_format`."""
    return torch.empty_like(x, dtype=dtype, memory_format=memory_format).copy_(x)


def stored_like(x: Tensor, dtype: torch.dtype, like: Tensor) -> Tensor:
    """x rounded to `dtype`, dense in the memory format of `like`."""
    return stored(x, dtype, memory_format_of(like))


def dense(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """The parameter in `dtype` and contiguous; itself where it is, which `.to()` takes a microsecond to find."""
    if parameter.dtype == dtype and parameter.is_contiguous():
        return parameter
    return parameter.to(dtype).contiguous()
