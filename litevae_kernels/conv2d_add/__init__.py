"""A convolution added to a tensor. Contract and fast path: README.md."""

from litevae_kernels.conv2d_add.api import conv2d_add

__all__ = ["conv2d_add"]
