"""GroupNorm followed by SiLU, of one tensor or of two on the channel axis. Maths, layout and backends: README.md."""

from litevae_kernels.group_norm_silu.api import group_norm_silu

__all__ = ["group_norm_silu"]
