"""What an extractor and an aggregator are: networks that keep the resolution, and say how their weights start.

image -> DWT -> [feature extraction -> aggregation] -> latent -> decoder -> losses
"""

import torch
from torch import Tensor, nn

from litevae.models.blocks import GradientCheckpointing, keep_variance, set_outputs


class FeatureNetwork(GradientCheckpointing):
    """features [B, in_channels, h, w] -> [B, out_channels, h, w]: `conv_in`, blocks, `conv_out`.

    Each kind has a file of its own and a line in `EXTRACTORS` or `AGGREGATORS` (encoder.py).
    """

    conv_in: nn.Conv2d
    conv_out: nn.Conv2d

    def start_residual(self, linear: Tensor | None = None) -> None:
        """Set the weights so that the network is nearly linear and keeps the variance of its input (initialize.py).

        With `linear` [n, m] the first n outputs are that map of the first m inputs, at each position by itself. Every
        width inside must be at least n.
        """
        keep_variance(self.conv_in)
        keep_variance(self.conv_out)
        if linear is not None:
            set_outputs(self.conv_in, linear)
            set_outputs(self.conv_out, torch.eye(len(linear)))
