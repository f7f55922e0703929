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
from litevae.models.blocks import keep_variance, set_outputs
from litevae.models.encoder import Encoder
from litevae.models.feature_network import FeatureNetwork
from litevae.models.litevae import LiteVAE
from litevae.models.wavelet_start import WaveletStart, check_wavelet_start, wavelet_start
from litevae_kernels.checks import check_choice, wrong_value

INITIALIZATIONS = ("pytorch", "residual", "wavelet")
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

    "wavelet" is "residual", and the linear autoencoder is known (wavelet_start.py): the extractors pass the sub-bands,
    the latent begins with L of the last level, from which the decoder makes a smooth image. It is exact, but for a
    GroupNorm before the decoder's last convolution and a ViT: of chelsea and coffee's values in [-1, 1] groups of 4
    change at most 0.0013, groups of 3 0.012, the ViT 0.006. All that "residual" draws beside this is drawn here too.

    Raises:
        ValueError: no such `how`, or "wavelet" and a model that cannot start so (`check_wavelet_start`).
    """
    check_choice("how", how, INITIALIZATIONS)
    if how == "pytorch":
        return
    if isinstance(model, StableDiffusionVAE):
        if how == "wavelet":
            raise wrong_value("how", "be 'pytorch' or 'residual' for a StableDiffusionVAE, which has no wavelets", how)
        _start_baseline(model)
        return
    if how == "wavelet":
        check_wavelet_start(model.architecture)
    _start_litevae(model, wavelet_start(model.architecture) if how == "wavelet" else None)


def _start_litevae(model: LiteVAE, start: WaveletStart | None) -> None:
    """The order of the layers is that of what they draw: a seed means what it meant in older versions."""
    encoder = model.encoder
    if isinstance(encoder, Encoder):
        for network in encoder.extraction:
            cast(FeatureNetwork, network).start_residual(None if start is None else start.extraction)
        encoder.aggregation.start_residual(None if start is None else start.analysis)
    model.decoder.start_residual(None if start is None else start.low_pass)
    if isinstance(encoder, Encoder):
        for layer in encoder.downsample:
            if isinstance(layer, nn.Conv2d):
                keep_variance(layer)
    if model.post_quant_conv is not None:
        keep_variance(model.post_quant_conv)
        if start is not None:
            set_outputs(model.post_quant_conv, torch.eye(model.latent_channels))
    if isinstance(encoder, Encoder):
        if model.quant_conv is not None and start is not None:
            set_outputs(model.quant_conv, torch.eye(model.latent_channels))
        _quiet_posterior(model.quant_conv or encoder.aggregation.conv_out, keep_means=start is not None)


def start_encoder(encoder: Encoder) -> None:
    """ "residual" for an encoder alone, without a 1x1 convolution behind it."""
    for network in encoder.extraction:
        cast(FeatureNetwork, network).start_residual()
    encoder.aggregation.start_residual()
    for layer in encoder.downsample:
        if isinstance(layer, nn.Conv2d):
            keep_variance(layer)
    _quiet_posterior(encoder.aggregation.conv_out)


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
    if model.post_quant_conv is not None:
        keep_variance(model.post_quant_conv)


def _quiet_posterior(last: nn.Conv2d, keep_means: bool = False) -> None:
    """Log-variances near INITIAL_LOGVAR, whatever the image: noise of about 5 % of a unit-variance mean."""
    assert last.bias is not None
    means = last.weight.chunk(2)[0].detach().clone()
    keep_variance(last)
    with torch.no_grad():
        if keep_means:
            last.weight.chunk(2)[0].copy_(means)
        last.weight.chunk(2)[1].mul_(0.1)
        last.bias.chunk(2)[1].fill_(INITIAL_LOGVAR)
