"""What does each encoder cost? Table 3 of the paper: parameters, arithmetic, memory and throughput.

image -> [DWT -> feature extraction -> aggregation -> latent] -> decoder -> losses

From the image to the moments (mean and log-variance) of a latent of 4 channels at 256x256, eval, inference_mode, random
weights. VAE: the encoder of Stable Diffusion's AutoencoderKL with its 1x1 quant_conv, as diffusers has it. The encoders
are in encoders.py.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.harness import measure
from benchmarks.harness.available import missing_package, skip_unavailable
from benchmarks.harness.measure import DEVICE, relative_error
from benchmarks.harness.report import Column, Results, Table
from benchmarks.rivals import encoders
from benchmarks.rivals.encoders import ROWS, VAE, Convolutions, convolutions_of

RESOLUTION = 256
MEMORY_BATCH = 32  # the paper's
BATCH = MEMORY_BATCH if DEVICE.type == "cuda" else 4
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
if DEVICE.type != "cuda":
    del DTYPES["tf32"]
TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}  # of the moments, beside the reference backend's

# Table 3, one Quadro RTX 6000, batch 32: parameters (M), memory (MB), throughput (img/s).
PAPER: dict[str, tuple[float, float, float]] = {
    "VAE": (34.16, 8860, 68),
    "LiteVAE-S": (1.03, 1324, 384),
    "LiteVAE-B": (6.75, 3155, 129),
    "LiteVAE-M": (32.75, 12130, 42.24),
    "LiteVAE-L": (41.425, 12130, 41.6),
}
WITH_CONVOLUTIONS = ("LiteVAE-S", "LiteVAE-B")  # rows that are also timed beside their convolutions alone


@functools.cache
def costs(name: str, dtype: torch.dtype) -> dict[str, float]:
    """What is the same on every machine, counted on meta tensors."""
    encoder = encoders.build(name, "meta", dtype)
    image, images = (torch.empty(n, 3, RESOLUTION, RESOLUTION, device="meta", dtype=dtype) for n in (1, MEMORY_BATCH))
    with torch.inference_mode():
        counted = measure.costs(encoder, image, images)
    if ROWS[name].compiled:
        del counted["live_mb"]  # a compiler may keep less alive than eager does
    return counted


def _columns() -> list[Column]:
    measured_on_gpu = [
        Column("cuda_mib", "CUDA peak, MiB", ".0f"),
        Column("cuda_to_vae", "/ VAE", ".3f"),
    ]
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
        "batch": f"{BATCH} for the throughput, {MEMORY_BATCH} for the memory",
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
        "The paper's figures: one Quadro RTX 6000, batch 32; it states neither resolution nor precision nor what "
        "its memory counts.",
        "Throughput / VAE: from the median over rounds of the row's time and the VAE's right after it. Time / its "
        "convolutions: beside the same convolutions in channels_last with nothing between them.",
    ],
)


def check(name: str, dtype: str, encoder: nn.Module, image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to time a wrong result: LiteVAE's moments are the reference backend's, the VAE's the eager VAE's."""
    moments = encoder(image)
    shape = (BATCH, 8, RESOLUTION // 8, RESOLUTION // 8)
    if name.startswith(("VAE", "LiteVAE")) and moments.shape != shape:
        raise AssertionError(f"{name} must give 8 moments at an eighth of the image's side, got {moments.shape}")
    if not name.startswith(("VAE", "LiteVAE")):
        return
    state = encoder.encoder.state_dict() if isinstance(encoder, encoders.PaperEncoder) else encoder.state_dict()
    plain = encoders.build(name.split()[0].rstrip(","), DEVICE, DTYPES[dtype])
    plain.load_state_dict(state)
    with monkeypatch.context() as patch:
        patch.setenv("LITEVAE_KERNELS_BACKEND", "reference")
        error = relative_error(moments, plain(image))
    if error > TOLERANCES[dtype]:
        raise AssertionError(f"{name}: relative error {error:.1e} is above {TOLERANCES[dtype]:.0e}")


def encoding(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Callable[[], object]]:
    """The encoder, an image batch, and the step that is timed: the batch to its moments."""
    encoder = encoders.build(name, DEVICE, dtype)
    image = (torch.rand(BATCH, 3, RESOLUTION, RESOLUTION, device=DEVICE) * 2 - 1).to(dtype)
    return encoder, image, measure.consuming(encoder, itertools.repeat(image))


@pytest.mark.benchmark(group="table3_encoders", timer=measure.clock)
@pytest.mark.parametrize(("name", "dtype"), LABELS, ids=list(LABELS.values()))
@torch.inference_mode()
def test_table3_encoders(
    name: str, dtype: str, benchmark: BenchmarkFixture, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = LABELS[name, dtype]
    skip_unavailable(ROWS[name].missing(), TABLE, label, results)
    with measure.tf32(dtype == "tf32"):
        measured = _measure(name, dtype, benchmark, monkeypatch)
    if measured is not None:
        benchmark.extra_info.update(measured)
        results.add(TABLE, label, measured)


def _measure(
    name: str, dtype: str, benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any] | None:
    torch.manual_seed(0)
    torch.compiler.reset()
    encoder, image, step = encoding(name, DTYPES[dtype])
    check(name, dtype, encoder, image, monkeypatch)
    rivals, vae = {}, None
    if not missing_package("diffusers"):
        vae = encoding(VAE, DTYPES[dtype])
        rivals["VAE"] = vae[2]
    if name in WITH_CONVOLUTIONS:
        alone = Convolutions(convolutions_of(name, BATCH, RESOLUTION), DEVICE, DTYPES[dtype])
        rivals["convolutions"] = measure.consuming(alone, itertools.repeat(image))
    timing = measure.time_interleaved(benchmark, step, rivals, budget_s=12.0)
    if timing is None:
        return None
    row: dict[str, Any] = {**costs(name, DTYPES[dtype]), "rounds": timing.rounds}
    row["img_per_s"] = BATCH / timing.median_s
    row["iqr_img_per_s"] = BATCH / timing.quartiles_s[0] - BATCH / timing.quartiles_s[1]
    row["time_to_convolutions"] = timing.ratios.get("convolutions")
    if name in PAPER:
        row["paper_parameters_m"], row["paper_mb"], row["paper_img_per_s"] = PAPER[name]
        row["paper_mb_to_vae"], row["paper_speed_to_vae"] = (PAPER[name][i] / PAPER["VAE"][i] for i in (1, 2))
    if DEVICE.type == "cuda":
        row["cuda_mib"] = measure.cuda_mib(encoder, image, step)
    if vae and "live_mb" in row:
        row["live_to_vae"] = row["live_mb"] / costs(VAE, DTYPES[dtype])["live_mb"]
    if vae:
        row["speed_to_vae"] = 1 / timing.ratios["VAE"]
    if vae and DEVICE.type == "cuda":
        row["cuda_to_vae"] = row["cuda_mib"] / measure.cuda_mib(*vae)
    return row
