"""Which linear maps make an untrained LiteVAE a wavelet codec, and which models can start as one?

image -> DWT -> [feature extraction -> aggregation -> latent -> decoder] -> losses
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from litevae.config import LiteVAEConfig
from litevae.models.decoder import pair_stride
from litevae_kernels.checks import wrong_value

BANDS = 4  # L, H, V, D
LOW_PASS_GAIN, DETAIL_GAIN = 4.0, 16.0  # photographs then have sub-bands and latents of a standard deviation near 1


class WaveletStart(NamedTuple):
    """The linear maps of an untrained model (initialize.py).

    extraction [4C, 4C]: a level's sub-bands -> the first of its extractor's channels. analysis [n, levels * 4C]: the
    channels of all extractors -> the first n means of the latent. low_pass [C, latent_channels]: a latent -> L of the
    last level.
    """

    extraction: Tensor
    analysis: Tensor
    low_pass: Tensor


def wavelet_start(config: LiteVAEConfig) -> WaveletStart:
    """The maps of a model that `check_wavelet_start` takes.

    Extractors scale L by LOW_PASS_GAIN and H, V, D by DETAIL_GAIN: a step of Adam, which has the same size in every
    weight, then changes little. A learned latent is L of the last level, then H, V and D of it: of the brightness, and
    with more channels of the differences between the colours. Beyond 4 * in_channels nothing is set.
    """
    channels, latent_channels = config.in_channels, config.latent_channels
    bands = BANDS * channels
    gains = torch.tensor([LOW_PASS_GAIN] * channels + [DETAIL_GAIN] * (bands - channels))
    details = [torch.kron(torch.eye(BANDS)[band], colour) for colour in _colours(channels) for band in (1, 2, 3)]
    rows = torch.cat([torch.eye(channels, bands), torch.stack(details)])[:latent_channels]  # [n, 4C]
    finer = torch.zeros(len(rows), bands * (len(config.wavelet_levels) - 1))
    low_pass = torch.eye(channels, latent_channels)
    if config.encoder_type == "learned":
        low_pass /= LOW_PASS_GAIN
    elif config.encoder_type == "dwt-2":  # L of the level before the last, four positions as channels: L is their mean
        low_pass = torch.kron(torch.eye(channels, bands), torch.full((1, 4), 0.25))
    return WaveletStart(torch.diag(gains), torch.cat([finer, rows], dim=1), low_pass)


def _colours(channels: int) -> Tensor:
    """The DCT-II of a pixel's channels, orthonormal, [C, C]; of RGB: brightness, red - blue, green against both."""
    index = torch.arange(channels, dtype=torch.float64)
    rows = torch.cos(torch.pi * index[:, None] * (index + 0.5) / channels) * math.sqrt(2 / channels)
    rows[0] /= math.sqrt(2)
    return rows.float()


def check_wavelet_start(config: LiteVAEConfig) -> None:
    """Raise a ValueError that names the argument because of which a model cannot start as a wavelet codec."""
    channels, how = config.in_channels, "for initialization='wavelet'"
    residual = "or initialize with 'residual'"
    if config.out_channels != channels:
        raise wrong_value("out_channels", f"be in_channels, {channels}, {how}", config.out_channels, residual)
    if config.latent_channels < channels:
        rule = f"be at least in_channels, {channels}, {how}: a low-pass channel for each"
        raise wrong_value("latent_channels", rule, config.latent_channels, residual)
    if config.encoder_type == "learned":
        _check_encoder(config, how, residual)
    width, stride = config.block_out_channels[0], pair_stride(config)
    if config.has_outer_norm and (stride < 3 or stride * channels > width):
        rule = f"be False {how} with block_out_channels[0]={width}, {stride} to a group of GroupNorm, whose scale no "
        way_out = f"96 or 128 channels have groups of 3 or 4; {residual}"
        raise wrong_value("decoder_outer_norm", f"{rule}constant can hold", config.decoder_outer_norm, way_out)
    least = stride * channels
    if min(config.block_out_channels) < least:
        rule = f"be at least {least} each {how}, {stride} for each colour"
        raise wrong_value("block_out_channels", rule, config.block_out_channels, residual)


def _check_encoder(config: LiteVAEConfig, how: str, residual: str) -> None:
    bands = BANDS * config.in_channels
    means = min(config.latent_channels, bands)
    least = {
        ("extraction", "unet"): ("extraction_channels", bands, "the sub-bands of a level"),
        ("extraction", "nafnet"): ("nafnet_width", bands, "the sub-bands of a level"),
        ("aggregation", "unet"): ("aggregation_channels", means, "the means of the latent"),
        ("aggregation", "vit"): ("vit_width", 8 * means, "the means of the latent, and constants that outweigh them"),
    }
    for part in ("extraction", "aggregation"):
        kind = getattr(config, part)
        if (part, kind) not in least:
            raise wrong_value(part, f"be one whose least width wavelet_start.py has {how}", kind, residual)
        name, at_least, what = least[part, kind]
        if getattr(config, name) < at_least:
            raise wrong_value(name, f"be at least {at_least} {how}: {what}", getattr(config, name), residual)
