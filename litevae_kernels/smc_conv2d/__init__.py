"""Self-modulated convolution (Eq. 3 of the paper). Maths, layout and backends: README.md."""

from litevae_kernels.smc_conv2d.api import smc_conv2d, smc_weight

__all__ = ["smc_conv2d", "smc_weight"]
