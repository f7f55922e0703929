"""What `litevae.fuse` is worth in autoencoders of diffusers: Stable Diffusion's, and FLUX's.

`encode` and `decode` of AutoencoderKL as a pipeline calls them, eval, no_grad, random weights. FLUX's has the widths of
Stable Diffusion's, a latent of 16 channels for 4, and no 1x1 convolutions beside it. The rows:

    eager            NCHW, as it is loaded
    channels_last    the same, weights in channels_last
    torch.compile    in channels_last, compiled for these shapes
    fused            fuse(vae), eager

This file is run when it is named: a run of all benchmarks has no time for it.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.harness import measure
from benchmarks.harness.available import emulated, missing_compiler
from benchmarks.harness.checks import check_network
from benchmarks.harness.directions import compiled
from benchmarks.harness.measure import DEVICE, DTYPES
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import measures
from benchmarks.harness.schedule import Share
from benchmarks.harness.turns import Turns
from benchmarks.rivals.encoders import SD_VAE
from litevae.cost import multiply_accumulates
from litevae.models.fuse import fuse
from litevae_kernels.precision import tf32

ON_GPU = DEVICE.type == "cuda"
BATCH = 4 if ON_GPU else 1
SIDES = (512,) if ON_GPU else (256, 128)  # the largest that a run has time for
COST_SIDE = 256
CALLS = 5  # that every row needs at least: its check, compilation, warm-up, one round

LAYOUTS: dict[str, dict[str, Any]] = {
    "SD": SD_VAE,
    "FLUX": {**SD_VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
}
YARDSTICK, CHANNELS_LAST, COMPILED, FUSED = WAYS = ("eager", "channels_last", "torch.compile", "fused")


class Part(NamedTuple):
    """`encode` or `decode` of one layout in one precision: a test, with a row for each way."""

    layout: str
    part: str
    precision: str

    @property
    def label(self) -> str:
        return f"{self.layout} {self.part}, {self.precision}"

    @property
    def labels(self) -> list[str]:
        return [self.labelled(way) for way in WAYS]

    def labelled(self, way: str) -> str:
        return f"{self.layout} {self.part}, {way}, {self.precision}"

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def emulated(self) -> str:
        return emulated(self.dtype)

    def inputs(self, batch: int, side: int, device: torch.device | str) -> Tensor:
        """Images [B, 3, side, side], or latents [B, C, side / 8, side / 8]."""
        torch.manual_seed(1)
        channels, factor = (3, 1) if self.part == "encode" else (LAYOUTS[self.layout]["latent_channels"], 8)
        return torch.randn(batch, channels, side // factor, side // factor, device=device).to(self.dtype)


PARTS = [Part(*chosen) for chosen in itertools.product(LAYOUTS, ("decode", "encode"), DTYPES)]


def build(part: Part, way: str, device: torch.device | str, dtype: torch.dtype) -> Any:
    """The autoencoder in its own layout of memory; all ways have the same weights."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    with torch.device(device):
        vae: Any = AutoencoderKL(**LAYOUTS[part.layout])
    vae = nn.Module.to(vae, dtype).eval().requires_grad_(False)  # vae.to(dtype) always warns
    if way == FUSED:
        return fuse(vae)
    return vae if way == YARDSTICK else vae.to(memory_format=torch.channels_last)


def call(part: Part, vae: Any) -> Callable[[Tensor], Tensor]:
    """What is timed: inputs -> the moments [B, 2C, side / 8, side / 8], or images [B, 3, side, side]."""
    if part.part == "decode":
        return lambda latent: vae.decode(latent, return_dict=False)[0]
    return lambda image: vae.encode(image, return_dict=False)[0].parameters


@functools.cache
def costs(part: Part, way: str) -> dict[str, float]:
    """The same on every machine, counted on meta tensors. A compiler may keep less alive than eager does."""
    if way == COMPILED:
        return {}
    vae = build(part, way, "meta", part.dtype)
    inputs, network = part.inputs(1, COST_SIDE, "meta"), vae.decoder if part.part == "decode" else vae.encoder
    return {"live_mb": measure.live_mb(call(part, vae), inputs, network)}


TABLE = Table(
    name="fuse",
    title="The autoencoders of diffusers, before and after fuse()",
    settings={
        "resolution": f"the column's squared for the throughput, {COST_SIDE}x{COST_SIDE} for the memory",
        "batch": f"{BATCH} for the throughput, 1 for the memory",
        "mode": "eval, no_grad",
    },
    columns=[
        Column("row", "part"),
        Column("live_mb", "live tensors, MB", ".0f"),
        Column("side", "resolution", "d"),
        Column("img_per_s", "img/s", ".4g"),
        Column("iqr_img_per_s", "IQR", ".2g"),
        *(Column(f"speed_to_{way}", f"/ {way}") for way in WAYS),
        Column("rounds", "rounds", "d"),
    ],
    order=[label for part in PARTS for label in part.labels],
    notes=[
        "Throughput / another way's: of the same part in the same precision, the median over rounds of the ratio.",
        "torch.compile: of the autoencoder in channels_last, for these shapes alone; its first call takes half a "
        "minute or more, which is not in the table.",
        "Live tensors: most bytes of parameters, inputs and activations alive at once, counted on meta tensors in "
        "eager mode, without workspaces inside operations.",
        "tf32: float32 tensors, with cuDNN and cuBLAS allowed to multiply in TF32.",
    ],
)


def check(part: Part, way: str, function: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    """Refuse to time a wrong result: it is diffusers' own."""

    def plain(precision: str) -> list[Tensor]:
        dtype = DTYPES[precision]
        return [call(part, build(part, YARDSTICK, inputs.device, dtype))(inputs.to(dtype))]

    check_network(part.labelled(way), part.precision, [function(inputs)], plain)


def seconds_a_round(part: Part, side: int) -> float:
    """An estimate for all ways together, from their arithmetic."""
    inputs = part.inputs(BATCH, side, "meta")
    gmac = multiply_accumulates(call(part, build(part, YARDSTICK, "meta", part.dtype)), inputs) / 1e9
    return len(WAYS) * gmac * measure.seconds_a_gmac(part.dtype)


@measures(TABLE, PARTS, seconds=80.0)
@torch.no_grad()
def test_fuse(row: Part, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    """All ways of one part in one precision, which take turns."""
    turns, expected_s = Turns(share), 0.0
    side = share.largest(SIDES, lambda size: CALLS * seconds_a_round(row, size))
    inputs = row.inputs(BATCH, side, DEVICE)
    if reason := missing_compiler():
        turns.left_out[COMPILED] = reason
    with tf32(row.precision == "tf32"):
        for way in WAYS:
            if way in turns.left_out or not turns.expects(way, expected_s):
                continue
            function = call(row, build(row, way, DEVICE, row.dtype))
            if way == COMPILED:
                function = compiled(function, row.label)
            if way != YARDSTICK:
                check(row, way, function, inputs if way == COMPILED else inputs[..., : side // 16, : side // 16])
            turns.add(way, measure.consuming(function, itertools.repeat(inputs)))
            expected_s = turns.rounds[YARDSTICK].expected_s  # all of them do the same arithmetic
        timings = turns.time(benchmark, YARDSTICK)
        for way, reason in turns.left_out.items():
            results.skip(TABLE, row.labelled(way), reason)
        for way, timing in (timings or {}).items():
            values: dict[str, Any] = {**costs(row, way), "side": side, **timing.images_per_second(BATCH)}
            values |= {f"speed_to_{other}": 1 / timing.ratios.get(other, 1.0) for other in turns.rounds}
            benchmark.extra_info[way] = values
            results.add(TABLE, row.labelled(way), values)
