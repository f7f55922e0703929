"""What an extractor and an aggregator are: networks that keep the resolution, and say how their weights start.

image -> DWT -> [feature extraction -> aggregation] -> latent -> decoder -> losses
"""

from torch import nn

from litevae.models.blocks import GradientCheckpointing, keep_variance


class FeatureNetwork(GradientCheckpointing):
    """features [B, in_channels, h, w] -> [B, out_channels, h, w]: `conv_in`, blocks, `conv_out`.

    Each kind has a file of its own and a line in `EXTRACTORS` or `AGGREGATORS` (encoder.py).
    """

    conv_in: nn.Conv2d
    conv_out: nn.Conv2d

    def start_residual(self) -> None:
        """Set the weights so that the network is nearly linear and keeps the variance of its input (initialize.py)."""
        keep_variance(self.conv_in)
        keep_variance(self.conv_out)
