"""Multi-level 2D Haar wavelet transform and its inverse. Maths, layout and backends: README.md."""

from litevae_kernels.haar_dwt2d.api import haar_dwt2d, haar_idwt2d

__all__ = ["haar_dwt2d", "haar_idwt2d"]
