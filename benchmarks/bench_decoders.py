"""What each decoder costs: Stable Diffusion's, also by its faster ways, and LiteVAE's with each normalisation.

image -> DWT -> feature extraction -> aggregation -> latent -> [decoder] -> losses

From a latent of 4 channels at 32x32 to the image at 256x256 (a CPU that is too slow for it: 16x16, 128x128), eval,
no_grad, random weights. The rows:

    SD decoder          diffusers' AutoencoderKL: its 1x1 post_quant_conv and its decoder, eager, NCHW
    channels_last       the same, weights and latent in channels_last
    torch.compile       the same in NCHW, compiled for these shapes
    group_norm          LiteVAE's decoder, the same function but for post_quant_conv: channels_last, GroupNorm with SiLU
    smc                 self-modulated convolutions in place of GroupNorm, modulated at every call
    smc, folded         what optimize_for_inference() makes of it: plain convolutions, no GroupNorm
"""

import functools
import itertools
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.harness import measure
from benchmarks.harness.available import emulated, missing_compiler
from benchmarks.harness.checks import check_network
from benchmarks.harness.directions import compiled
from benchmarks.harness.measure import DEVICE, DTYPES
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import Group, measures
from benchmarks.harness.schedule import Share
from benchmarks.harness.turns import Turns
from benchmarks.rivals.encoders import autoencoder_kl
from litevae.models.litevae import LiteVAE
from litevae_kernels.precision import tf32

RESOLUTION = 256
MEMORY_BATCH = 32
ON_GPU = DEVICE.type == "cuda"
BATCH = MEMORY_BATCH if ON_GPU else 1
TIMED_RESOLUTIONS = (RESOLUTION,) if ON_GPU else (RESOLUTION, RESOLUTION // 2)  # the largest that a run has time for
CALLS = 5  # that every row needs at least: its check, compilation, warm-up, one round

YARDSTICK, COMPILED = "SD decoder", "SD decoder, torch.compile"
GROUP_NORM, SMC, FOLDED = "LiteVAE, group_norm", "LiteVAE, smc", "LiteVAE, smc, folded"
DECODERS = (YARDSTICK, "SD decoder, channels_last", COMPILED, GROUP_NORM, SMC, FOLDED)
LABELS = {(name, precision): f"{name}, {precision}" for precision in DTYPES for name in DECODERS}


def build(name: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The decoder `name`: latent [B, 4, h, w] -> image [B, 3, 8h, 8w]; those that compute the same share weights."""
    torch.manual_seed(0)
    with torch.device(device):
        if name in (SMC, FOLDED):
            model = LiteVAE.from_preset("B", decoder_normalization="smc")
            decoder: Any = (model.optimize_for_inference() if name == FOLDED else model).decoder
        else:
            vae = autoencoder_kl()
            decoder = nn.Sequential(vae.post_quant_conv, vae.decoder)
        if name == GROUP_NORM:
            weights = decoder[1].state_dict()
            decoder = LiteVAE.from_preset("B").decoder
            decoder.load_state_dict(weights)
    if "channels_last" in name:
        decoder.to(memory_format=torch.channels_last)
    return decoder.to(dtype).eval().requires_grad_(False)


def latents(batch: int, device: torch.device | str, name: str, dtype: torch.dtype, side: int = RESOLUTION) -> Tensor:
    """A batch [B, 4, h, w] of images of `side` pixels, in the decoder's own memory format."""
    latent = torch.randn(batch, 4, side // 8, side // 8, device=device).to(dtype)
    return latent.contiguous(memory_format=torch.channels_last) if "channels_last" in name else latent


@functools.cache
def costs(name: str, dtype: torch.dtype) -> dict[str, float]:
    """What is the same on every machine, counted on meta tensors. A compiler may keep less alive than eager does."""
    decoder = build(name, "meta", dtype)
    latent, batch = (latents(count, "meta", name, dtype) for count in (1, MEMORY_BATCH))
    live = {} if name == COMPILED else {"live_mb": measure.live_mb(decoder, batch, decoder)}
    return {**measure.costs(decoder, latent), **live}


TABLE = Table(
    name="decoders",
    title="Decoders",
    settings={
        "resolution": f"the column's squared for the throughput, {RESOLUTION}x{RESOLUTION} for GMAC and memory",
        "batch": f"{BATCH} for the throughput, {MEMORY_BATCH} for the memory",
        "mode": "eval, no_grad",
    },
    columns=[
        Column("row", "decoder"),
        Column("parameters_m", "parameters, M", ".3f"),
        Column("gmac", "GMAC"),
        Column("live_mb", "live tensors, MB", ".0f"),
        *([Column("cuda_mib", "CUDA peak, MiB", ".0f")] if ON_GPU else []),
        Column("side", "resolution", "d"),
        Column("img_per_s", "img/s", ".4g"),
        Column("iqr_img_per_s", "IQR", ".2g"),
        Column("speed_to_sd", "/ SD decoder"),
        Column("rounds", "rounds", "d"),
    ],
    order=list(LABELS.values()),
    notes=[
        "SD decoder: diffusers' AutoencoderKL decoder with its 1x1 post_quant_conv, eager, NCHW. Throughput / SD "
        "decoder: at the same precision, from the median over rounds of the row's time and the SD decoder's right "
        "after it.",
        "GMAC: multiply-accumulates of convolutions and matrix products, attention's among them, for one image.",
        "Live tensors: most bytes of parameters, latents and activations alive at once, counted on meta tensors in "
        "eager mode, without workspaces inside operations and an allocator's rounding and fragments.",
        "tf32: float32 tensors, with cuDNN and cuBLAS allowed to multiply in TF32.",
    ],
)


def check(name: str, precision: str, decoder: nn.Module, latent: Tensor) -> None:
    """Refuse to time a wrong image: it is the yardstick's, or for SMC that of the reference operators."""
    correct = SMC if name in (SMC, FOLDED) else YARDSTICK

    def plain(precision: str) -> list[Tensor]:
        dtype = DTYPES[precision]
        decoder: Any = build(correct, latent.device, dtype)
        decoder = decoder[1] if name == GROUP_NORM else decoder  # without post_quant_conv
        return [decoder(latent.to(dtype).contiguous())]

    check_network(LABELS[name, precision], precision, [decoder(latent)], plain)


def seconds_an_image(side: int, dtype: torch.dtype) -> float:
    """An estimate for all decoders together, from their arithmetic."""
    gmac = sum(costs(name, dtype)["gmac"] for name in DECODERS) * (side / RESOLUTION) ** 2
    return gmac * measure.seconds_a_gmac(dtype)


GROUPS = [
    Group(precision, [LABELS[name, precision] for name in DECODERS], emulated=emulated(dtype))
    for precision, dtype in DTYPES.items()
]


@measures(TABLE, GROUPS, seconds=50.0)
@torch.no_grad()
def test_decoders(row: Group, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    """All decoders at one precision, which take turns."""
    precision, dtype, turns, expected_s = row.label, DTYPES[row.label], Turns(share), 0.0
    models: dict[str, tuple[nn.Module, Tensor]] = {}
    side = share.largest(TIMED_RESOLUTIONS, lambda size: CALLS * seconds_an_image(size, dtype))
    if reason := missing_compiler():
        turns.left_out[COMPILED] = reason
    with tf32(precision == "tf32"):
        for name in DECODERS:
            if name in turns.left_out or not turns.expects(name, expected_s):
                continue
            decoder, latent = build(name, DEVICE, dtype), latents(BATCH, DEVICE, name, dtype, side)
            decode: Any = compiled(decoder, LABELS[name, precision]) if name == COMPILED else decoder
            if name != YARDSTICK:
                check(name, precision, decode, latent if name == COMPILED else latent[..., : side // 16, : side // 16])
            models[name] = decoder, latent
            turns.add(name, measure.consuming(decode, itertools.repeat(latent)))
            expected_s = turns.rounds[YARDSTICK].expected_s  # all of them do the same arithmetic
        timings = turns.time(benchmark, YARDSTICK)
        for name, reason in turns.left_out.items():
            results.skip(TABLE, LABELS[name, precision], reason)
        for name, timing in (timings or {}).items():
            values: dict[str, Any] = {**costs(name, dtype), "side": side, **timing.images_per_second(BATCH)}
            values["speed_to_sd"] = 1 / timing.ratios.get(YARDSTICK, 1.0)
            if ON_GPU:
                values["cuda_mib"] = measure.cuda_mib(*models[name], turns.rounds[name].step)
            benchmark.extra_info[name] = values
            results.add(TABLE, LABELS[name, precision], values)
