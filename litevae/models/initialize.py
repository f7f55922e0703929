"""How the weights start: as PyTorch's layers do, or so that the latent carries the image from the first step.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from typing import Any, cast

import torch
from diffusers.models.autoencoders import vae as diffusers_vae
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from litevae.models.baseline import StableDiffusionVAE
from litevae.models.blocks import ResBlock, keep_variance
from litevae.models.decoder import Upsample
from litevae.models.encoder import Encoder
from litevae.models.litevae import LiteVAE
from litevae_kernels.checks import check_choice

INITIALIZATIONS = ("pytorch", "residual")
INITIAL_LOGVAR = -6.0


def initialize(model: LiteVAE | StableDiffusionVAE, how: str) -> None:
    """Set a new model's weights in place; the paper does not say how it does.

    "pytorch" leaves every layer as its class makes it. Each plain convolution then shrinks its input's variance to a
    third, and about twenty of them stand between an image and its reconstruction, so the image has to be found again
    first; and the posterior's noise starts as large as N(0, 1).

    "residual" starts from a nearly linear autoencoder: the last convolution of every ResBlock is zero (as in ADM,
    whose UNet appendix F follows), the convolutions on the way around the ResBlocks keep the variance (He et al.
    2015, gain 1), and log-variances start near -6. Self-modulated convolutions set their own scale; their gain
    starts at 0 instead of their weight. It means the same for Stable Diffusion's autoencoder, so that a comparison
    compares the architectures.
    """
    check_choice("how", how, INITIALIZATIONS)
    if how == "pytorch":
        return
    if isinstance(model, StableDiffusionVAE):
        _start_baseline(model)
    else:
        _start_litevae(model)
    if model.post_quant_conv is not None:
        keep_variance(model.post_quant_conv)


def _start_litevae(model: LiteVAE) -> None:
    encoder, decoder = model.encoder, model.decoder
    if isinstance(encoder, Encoder):
        for network in (*encoder.extraction, encoder.aggregation):
            network.start_residual()
        for layer in encoder.downsample:
            if isinstance(layer, nn.Conv2d):
                keep_variance(layer)
        _quiet_posterior(model.quant_conv or encoder.aggregation.conv_out)
    keep_variance(decoder.conv_in)
    for module in decoder.modules():
        if isinstance(module, ResBlock):
            module.start_residual()
        elif isinstance(module, Upsample):
            keep_variance(module.conv)
    keep_variance(decoder.conv_out)


def _start_baseline(model: StableDiffusionVAE) -> None:
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            last = module.conv2
            nn.init.zeros_(last.weight)
            nn.init.zeros_(cast(Any, last.bias))
            if module.conv_shortcut is not None:
                keep_variance(module.conv_shortcut)
        elif isinstance(module, diffusers_vae.Encoder | diffusers_vae.Decoder):
            keep_variance(module.conv_in)
            keep_variance(module.conv_out)
        elif isinstance(module, Upsample2D | Downsample2D):
            keep_variance(cast(nn.Conv2d, module.conv))
    _quiet_posterior(model.quant_conv or model.vae.encoder.conv_out)


def _quiet_posterior(last: nn.Conv2d) -> None:
    """Log-variances near INITIAL_LOGVAR, whatever the image: noise of about 5 % of a unit-variance mean."""
    keep_variance(last)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.chunk(2)[1].mul_(0.1)
        last.bias.chunk(2)[1].fill_(INITIAL_LOGVAR)
