"""The operators of LiteVAE, usable without the model: the whole public API.

image -> [DWT] -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN, SMC] -> losses

Each operator has a folder of its own with the mathematics in its README. `haar_dwt2d/`, `smc_conv2d/` and
`group_norm_silu/` have the same backends: `backends()` says which of them work on this machine.
"""

from litevae_kernels import compat
from litevae_kernels.backends import BackendStatus, backends
from litevae_kernels.conv2d_add import conv2d_add
from litevae_kernels.decompositions import export_decompositions
from litevae_kernels.group_norm_silu import group_norm_silu
from litevae_kernels.haar_dwt2d import haar_dwt2d, haar_idwt2d
from litevae_kernels.smc_conv2d import smc_conv2d, smc_weight

__all__ = [
    "BackendStatus",
    "backends",
    "compat",
    "conv2d_add",
    "export_decompositions",
    "group_norm_silu",
    "haar_dwt2d",
    "haar_idwt2d",
    "smc_conv2d",
    "smc_weight",
]
