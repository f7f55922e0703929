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
from litevae.models.blocks import ResBlock, SMConv2d
from litevae.models.decoder import Decoder, Upsample
from litevae.models.litevae import LiteVAE
from litevae.models.unet import UNet
from litevae_kernels.checks import check_choice

INITIALIZATIONS = ("pytorch", "residual")
INITIAL_LOGVAR = -6.0

# LiteVAE's, and what Stable Diffusion's autoencoder has in their place.
_RES_BLOCKS = (ResBlock, ResnetBlock2D)
_NETWORKS = (UNet, Decoder, diffusers_vae.Encoder, diffusers_vae.Decoder)
_RESAMPLINGS = (Upsample, Upsample2D, Downsample2D)


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
    for module in model.modules():
        if isinstance(module, _RES_BLOCKS):
            _start_at_zero(module.conv2)
            if module.conv_shortcut is not None:
                _keep_variance(module.conv_shortcut)
        elif isinstance(module, _NETWORKS):
            _keep_variance(module.conv_in)
            _keep_variance(module.conv_out)
        elif isinstance(module, _RESAMPLINGS):
            _keep_variance(cast(nn.Conv2d, module.conv))
    if isinstance(model, LiteVAE):
        for layer in model.encoder.downsample:
            if isinstance(layer, nn.Conv2d):
                _keep_variance(layer)
    if model.post_quant_conv is not None:
        _keep_variance(model.post_quant_conv)
    _quiet_posterior(model)


def _start_at_zero(layer: nn.Module) -> None:
    if isinstance(layer, SMConv2d):
        nn.init.zeros_(layer.gain)
    elif isinstance(layer, nn.Conv2d):
        nn.init.zeros_(layer.weight)
    else:
        raise TypeError(f"the start of a {type(layer).__name__} in a ResBlock must be written down here")
    if isinstance(layer.bias, nn.Parameter):
        nn.init.zeros_(layer.bias)


def _keep_variance(layer: nn.Conv2d) -> None:
    # Drawn in NCHW, so that a seed means one model whatever the layout.
    weight = torch.empty_like(layer.weight, memory_format=torch.contiguous_format)
    nn.init.kaiming_normal_(weight, nonlinearity="linear")
    with torch.no_grad():
        layer.weight.copy_(weight)


def _quiet_posterior(model: LiteVAE | StableDiffusionVAE) -> None:
    """Log-variances near INITIAL_LOGVAR, whatever the image: noise of about 5 % of a unit-variance mean."""
    network: Any = model.encoder.aggregation if isinstance(model, LiteVAE) else model.encoder
    last: nn.Conv2d = network.conv_out if model.quant_conv is None else model.quant_conv
    _keep_variance(last)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.chunk(2)[1].mul_(0.1)
        last.bias.chunk(2)[1].fill_(INITIAL_LOGVAR)
