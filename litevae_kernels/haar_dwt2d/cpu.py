"""The C++ backend of the Haar DWT: allocates the results and passes pointers to csrc/haar_dwt2d/cpu.cpp."""

from collections.abc import Sequence

import torch
from torch import Tensor

from litevae_kernels import native
from litevae_kernels.formats import memory_format_of
from litevae_kernels.haar_dwt2d.geometry import empty_image, empty_pyramid, result_format, values_of


def analysis(
    image: Tensor,
    levels: int,
    factor: float,
    dtype: torch.dtype,
    transpose: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> list[Tensor]:
    """As `reference.analysis`; for an image of any strides, without a copy."""
    if dtype != image.dtype and torch.float64 in (dtype, image.dtype):  # the kernel mixes no dtype with float64
        memory_format = result_format(image, memory_format)
        pyramid = analysis(values_of(image, torch.float64), levels, factor, torch.float64, transpose, memory_format)
        return [packed.to(dtype) for packed in pyramid]
    pyramid = empty_pyramid(image, levels, dtype, memory_format)
    _call("litevae_haar_analysis", image, pyramid, factor, transpose)
    return pyramid


def synthesis(
    pyramid: Sequence[Tensor], height: int, width: int, factor: float, dtype: torch.dtype, transpose: bool = False
) -> Tensor:
    """As `reference.synthesis`; levels that are not dense in the finest level's memory format are copied."""
    if dtype != pyramid[0].dtype and torch.float64 in (dtype, pyramid[0].dtype):
        wide = [packed.double() for packed in pyramid]
        return synthesis(wide, height, width, factor, torch.float64, transpose).to(dtype)
    memory_format = memory_format_of(pyramid[0])
    pyramid = [packed.contiguous(memory_format=memory_format) for packed in pyramid]
    image = empty_image(pyramid, height, width, dtype)
    _call("litevae_haar_synthesis", image, pyramid, factor, transpose)
    return image


def _call(function: str, image: Tensor, pyramid: Sequence[Tensor], factor: float, transpose: bool) -> None:
    """Fills the struct HaarArguments, unless there is nothing to do."""
    if image.numel() == 0:
        return
    native.call(
        function,
        f"P14qd{len(pyramid)}P",
        image.data_ptr(),
        native.DTYPE_CODES[image.dtype],
        native.DTYPE_CODES[pyramid[0].dtype],
        *image.shape,
        *image.stride(),
        len(pyramid),
        memory_format_of(pyramid[0]) == torch.channels_last,
        transpose,
        native.threads_for(image.numel()),
        factor,
        *[packed.data_ptr() for packed in pyramid],
    )
