"""What would a run do? `--dry-run`: the whole config, the costs, and a look at the data.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from litevae.training.config import RunConfig


def dry_run(config: RunConfig) -> int:
    return 0
