"""The C++ backend of the Haar DWT: allocates the results and passes pointers to csrc/haar_dwt2d/cpu.cpp."""

from collections.abc import Sequence

import torch
from torch import Tensor

from litevae_kernels import native
from litevae_kernels.formats import memory_format_of
from litevae_kernels.haar_dwt2d.geometry import level_sizes, values_of


def analysis(
    image: Tensor, levels: int, factor: float, dtype: torch.dtype, transpose_of_synthesis: bool = False
) -> list[Tensor]:
    """As `reference.analysis`; for an image of any strides, without a copy."""
    if dtype != image.dtype and torch.float64 in (dtype, image.dtype):  # the kernel mixes no dtype with float64
        pyramid = analysis(values_of(image, torch.float64), levels, factor, torch.float64, transpose_of_synthesis)
        return [packed.to(dtype) for packed in pyramid]
    batch, channels, height, width = image.shape
    memory_format = memory_format_of(image)
    pyramid = [
        torch.empty((batch, 4 * channels, h, w), dtype=dtype, memory_format=memory_format)
        for h, w in level_sizes(height, width, levels)[1:]
    ]
    if image.numel() > 0:
        native.call(
            "litevae_haar_analysis",
            f"P14qd{levels}P",
            image.data_ptr(),
            native.DTYPE_CODES[image.dtype],
            native.DTYPE_CODES[dtype],
            *image.shape,
            *image.stride(),
            levels,
            memory_format == torch.channels_last,
            transpose_of_synthesis,
            native.threads_for(image.numel()),
            factor,
            *[packed.data_ptr() for packed in pyramid],
        )
    return pyramid


def synthesis(
    pyramid: Sequence[Tensor],
    height: int,
    width: int,
    factor: float,
    dtype: torch.dtype,
    transpose_of_analysis: bool = False,
) -> Tensor:
    """As `reference.synthesis`; levels that are not dense in the finest level's memory format are copied."""
    if dtype != pyramid[0].dtype and torch.float64 in (dtype, pyramid[0].dtype):
        wide = [packed.double() for packed in pyramid]
        return synthesis(wide, height, width, factor, torch.float64, transpose_of_analysis).to(dtype)
    memory_format = memory_format_of(pyramid[0])
    pyramid = [packed.contiguous(memory_format=memory_format) for packed in pyramid]
    batch, packed_channels = pyramid[0].shape[:2]
    image = torch.empty((batch, packed_channels // 4, height, width), dtype=dtype, memory_format=memory_format)
    if image.numel() > 0:
        native.call(
            "litevae_haar_synthesis",
            f"P14qd{len(pyramid)}P",
            image.data_ptr(),
            native.DTYPE_CODES[dtype],
            native.DTYPE_CODES[pyramid[0].dtype],
            *image.shape,
            *image.stride(),
            len(pyramid),
            memory_format == torch.channels_last,
            transpose_of_analysis,
            native.threads_for(image.numel()),
            factor,
            *[packed.data_ptr() for packed in pyramid],
        )
    return image
