"""What each encoder costs, Table 3 of the paper: parameters, arithmetic, memory and throughput.

image -> [DWT -> feature extraction -> aggregation -> latent] -> decoder -> losses

From the image to the moments (mean and log-variance) of a latent of 4 channels at 256x256, eval, inference_mode, random
weights. VAE: the encoder of Stable Diffusion's AutoencoderKL with its 1x1 quant_conv, as diffusers has it. The encoders
are in encoders.py.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.harness import measure
from benchmarks.harness.available import emulated
from benchmarks.harness.checks import check_network
from benchmarks.harness.measure import DEVICE, DTYPES, Timing
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import Group, measures
from benchmarks.harness.schedule import Share
from benchmarks.harness.turns import Turns
from benchmarks.rivals import encoders
from benchmarks.rivals.encoders import ROWS, VAE, VARIANTS, Convolutions, convolutions_of
from litevae.config import preset
from litevae.paper_tables.section5_tables import TABLE_3
from litevae_kernels.precision import tf32

RESOLUTION = 256
MEMORY_BATCH = 32  # the paper's
BATCHES = (MEMORY_BATCH,) if DEVICE.type == "cuda" else (4, 2, 1)  # the largest that a run has time for
CALLS = 3  # that every row needs at least: its check, compilation and warm-up, one round
CHECKED_SIDE = 128  # of one image, before a row is timed; one that is compiled for a shape is checked with that

# Table 3, one Quadro RTX 6000, batch 32: parameters (M), memory (MB), throughput (img/s).
PAPER: dict[str, list[float]] = {row.label: [float(value) for value in row.values] for row in TABLE_3.rows}
WITH_CONVOLUTIONS = ("LiteVAE-S", "LiteVAE-B")  # encoders that are also timed beside their convolutions alone


@functools.cache
def costs(name: str, dtype: torch.dtype) -> dict[str, float]:
    """What is the same on every machine, counted on meta tensors."""
    image = torch.empty(1, 3, RESOLUTION, RESOLUTION, device="meta", dtype=dtype)
    with torch.inference_mode():
        counted = measure.costs(encoders.build(name, "meta", dtype), image)
    if not ROWS[name].compiled:  # a compiler may keep less alive than eager does
        counted["live_mb"] = encoders.live_mb(name, dtype, MEMORY_BATCH, RESOLUTION)
    return counted


def _columns() -> list[Column]:
    measured_on_gpu = [Column("cuda_mib", "CUDA peak, MiB", ".0f"), Column("cuda_to_vae", "/ VAE", ".3f")]
    return [
        Column("row", "encoder"),
        Column("parameters_m", "parameters, M", ".3f"),
        Column("paper_parameters_m", "paper", ".5g"),
        Column("gmac", "GMAC"),
        Column("live_mb", "live tensors, MB", ".0f"),
        Column("live_to_vae", "/ VAE", ".3f"),
        *(measured_on_gpu if DEVICE.type == "cuda" else []),
        Column("paper_mb", "paper, MB", ".0f"),
        Column("paper_mb_to_vae", "/ VAE", ".3f"),
        Column("batch", "batch", "d"),
        Column("img_per_s", "img/s", ".4g"),
        Column("iqr_img_per_s", "IQR", ".2g"),
        Column("speed_to_vae", "/ VAE"),
        Column("paper_img_per_s", "paper, img/s", ".4g"),
        Column("paper_speed_to_vae", "/ VAE"),
        Column("time_to_convolutions", "time / its convolutions"),
        Column("rounds", "rounds", "d"),
    ]


LABELS = {(name, dtype): f"{name}, {dtype}" for dtype in DTYPES for name in ROWS}
TABLE = Table(
    name="table3_encoders",
    title="Table 3: encoders",
    settings={
        "resolution": f"{RESOLUTION}x{RESOLUTION}",
        "batch": f"{MEMORY_BATCH} for the memory, the column's for the throughput",
        "mode": "eval, inference_mode; VAE eager in NCHW where the row says nothing else; VAE / VAE shows the noise",
    },
    columns=_columns(),
    order=list(LABELS.values()),
    notes=[
        "LiteVAE-M and -L cost more arithmetic than Stable Diffusion's encoder and are slower than it in the same "
        "layout, in the paper too.",
        "GMAC: multiply-accumulates of convolutions and matrix products for one image. The VAE's include 1.07 for "
        "the two matrix products inside its attention, which other counts leave out.",
        "Live tensors: most bytes of parameters, images and activations alive at once, counted on meta tensors, "
        "without workspaces inside operations and an allocator's rounding and fragments. 1 MB is 10^6 bytes.",
        "As in the paper: ptwt once for each level, NCHW, skips concatenated, GroupNorm then SiLU, eager.",
        "TAESD and DC-AE: diffusers' AutoencoderTiny, and AutoencoderDC as dc-ae-f32c32, whose latent has an eighth of "
        "the positions in height and in width; what a user might take instead.",
        "Other parts in LiteVAE-B (Tables 18, 20, 21, 11) come last. SMC encoder: folded, as `optimize_for_inference` "
        "gives it. A UNet shared by the levels (Table 19) has B's arithmetic and no row. DWT, DWT-2: no network.",
        "The paper's figures: one Quadro RTX 6000, batch 32; it states neither resolution nor precision nor what "
        "its memory counts.",
        "Throughput / VAE: from the median over rounds of the row's time and the VAE's right after it. Time / its "
        "convolutions: beside the same convolutions in channels_last with nothing between them.",
    ],
)


def check(name: str, precision: str, encoder: nn.Module, image: Tensor) -> None:
    """Refuse to time a wrong result: LiteVAE's moments are the reference operators', the VAE's the eager VAE's."""
    if not name.startswith(("VAE", "LiteVAE")):
        return
    moments = encoder(image)
    factor = preset("B", **VARIANTS.get(name, {})).downsampling
    if moments.shape != (len(image), 8, image.shape[-2] // factor, image.shape[-1] // factor):
        raise AssertionError(f"{name} must give 8 moments at 1/{factor} of the image's side, got {moments.shape}")
    state = encoder.encoder.state_dict() if isinstance(encoder, encoders.PaperEncoder) else encoder.state_dict()

    def plain(precision: str) -> list[Tensor]:
        dtype = DTYPES[precision]
        made = encoders.build(name if name in VARIANTS else name.split()[0].rstrip(","), DEVICE, dtype)
        made.load_state_dict(state)
        return [made(image.to(dtype))]

    check_network(name, precision, [moments], plain)


GROUPS = [
    Group(precision, [LABELS[name, precision] for name in ROWS], emulated=emulated(dtype))
    for precision, dtype in DTYPES.items()
]


@measures(TABLE, GROUPS, seconds=110.0)
@torch.inference_mode()
def test_table3_encoders(row: Group, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    """All encoders at one precision, which take turns."""
    precision, turns = row.label, Turns(share)
    batch = share.largest(BATCHES, lambda size: size * CALLS * seconds_an_image(DTYPES[precision]))
    torch.manual_seed(0)
    torch.compiler.reset()
    with tf32(precision == "tf32"):
        models = set_up(precision, batch, turns)
        timings = turns.time(benchmark, next(iter(models), VAE))
        for name, reason in turns.left_out.items():
            results.skip(TABLE, f"{name}, {precision}", reason)
        for name, timing in (timings or {}).items():
            if name in ROWS:
                values = values_of(name, DTYPES[precision], batch, timing)
                if DEVICE.type == "cuda":
                    values["cuda_mib"] = measure.cuda_mib(*models[name], turns.rounds[name].step)
                    vae = measure.cuda_mib(*models[VAE], turns.rounds[VAE].step) if VAE in models else None
                    values["cuda_to_vae"] = vae and values["cuda_mib"] / vae
                benchmark.extra_info[name] = values
                results.add(TABLE, LABELS[name, precision], values)


def seconds_an_image(dtype: torch.dtype) -> float:
    """An estimate for all encoders together, from their arithmetic."""
    rows = [costs(name, dtype)["gmac"] for name, made in ROWS.items() if not made.missing()]
    return sum(rows) * measure.seconds_a_gmac(dtype)


def set_up(precision: str, batch: int, turns: Turns) -> Mapping[str, tuple[nn.Module, Tensor]]:
    """Every encoder with its images, checked and warm. The first one's time and the arithmetic predict the others'."""
    dtype, seconds_a_gmac = DTYPES[precision], 0.0
    models: dict[str, tuple[nn.Module, Tensor]] = {}
    for name, made in ROWS.items():
        if reason := made.missing():
            turns.left_out[name] = reason
        elif turns.expects(name, seconds_a_gmac * costs(name, dtype)["gmac"]):
            encoder, images, step = encoding(name, batch, dtype)
            check(name, precision, encoder, images if made.compiled else images[:1, :, :CHECKED_SIDE, :CHECKED_SIDE])
            models[name] = encoder, images
            turns.add(name, step)
            seconds_a_gmac = seconds_a_gmac or turns.rounds[name].expected_s / costs(name, dtype)["gmac"]
            if name in WITH_CONVOLUTIONS:
                alone = Convolutions(convolutions_of(name, batch, RESOLUTION), DEVICE, dtype)
                turns.add(f"{name}'s convolutions", measure.consuming(alone, itertools.repeat(images)))
    return models


def encoding(name: str, batch: int, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Callable[[], object]]:
    """The encoder, an image batch, and the step that is timed: the batch to its moments."""
    encoder = encoders.build(name, DEVICE, dtype)
    image = (torch.rand(batch, 3, RESOLUTION, RESOLUTION, device=DEVICE) * 2 - 1).to(dtype)
    return encoder, image, measure.consuming(encoder, itertools.repeat(image))


def values_of(name: str, dtype: torch.dtype, batch: int, timing: Timing) -> dict[str, Any]:
    values: dict[str, Any] = {**costs(name, dtype), "batch": batch, **timing.images_per_second(batch)}
    values["time_to_convolutions"] = timing.ratios.get(f"{name}'s convolutions")
    if name in PAPER:
        values["paper_parameters_m"], values["paper_mb"], values["paper_img_per_s"] = PAPER[name]
        values["paper_mb_to_vae"], values["paper_speed_to_vae"] = (PAPER[name][i] / PAPER["VAE"][i] for i in (1, 2))
    if name == VAE or VAE in timing.ratios:
        values["speed_to_vae"] = 1 / timing.ratios.get(VAE, 1.0)
        if "live_mb" in values:
            values["live_to_vae"] = values["live_mb"] / costs(VAE, dtype)["live_mb"]
    return values
