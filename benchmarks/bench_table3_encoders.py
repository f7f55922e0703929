"""What does each encoder cost? Table 3 of the paper: parameters, arithmetic, memory and throughput.

image -> [DWT -> feature extraction -> aggregation -> latent] -> decoder -> losses

From the image to the moments (mean and log-variance) of a latent of 4 channels at 256x256, eval, inference_mode, random
weights. VAE: the encoder of Stable Diffusion's AutoencoderKL with its 1x1 quant_conv, as diffusers has it.
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

from benchmarks import measure
from benchmarks.available import missing_package
from benchmarks.measure import DEVICE, MIB, relative_error
from benchmarks.report import Column, Results, Table
from litevae.config import PRESETS
from litevae.memory import peak_tensor_bytes
from litevae.models.encoder import Encoder

RESOLUTION = 256
MEMORY_BATCH = 32  # the paper's
BATCH = MEMORY_BATCH if DEVICE.type == "cuda" else 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16} if DEVICE.type == "cuda" else {"float32": torch.float32}
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # of the moments, with our backends against the reference backend

# Table 3, one Quadro RTX 6000, batch 32: parameters (M), memory (MB), throughput (img/s).
PAPER: dict[str, tuple[float, float, float]] = {
    "VAE": (34.16, 8860, 68),
    "LiteVAE-S": (1.03, 1324, 384),
    "LiteVAE-B": (6.75, 3155, 129),
    "LiteVAE-M": (32.75, 12130, 42.24),
    "LiteVAE-L": (41.425, 12130, 41.6),
}

SD_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}


def build(name: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The encoder `name`: image [B, 3, H, W] -> moments [B, 8, H/8, W/8]."""
    with torch.device(device):
        if name == "VAE":
            from diffusers import AutoencoderKL

            vae: Any = AutoencoderKL(**SD_VAE)
            encoder: nn.Module = nn.Sequential(vae.encoder, vae.quant_conv)
        else:
            encoder = Encoder(PRESETS[name.removeprefix("LiteVAE-")])
    return encoder.to(dtype).eval()


@functools.cache
def costs(name: str, dtype: torch.dtype) -> dict[str, float]:
    """What is the same on every machine, counted on meta tensors."""
    encoder = build(name, "meta", dtype)
    image, images = (torch.empty(n, 3, RESOLUTION, RESOLUTION, device="meta", dtype=dtype) for n in (1, MEMORY_BATCH))
    with torch.inference_mode():
        return {
            "parameters_m": measure.parameter_count(encoder) / 1e6,
            "gmac": measure.multiply_accumulates(encoder, image) / 1e9,
            "live_mib": peak_tensor_bytes(encoder, images, held=encoder.parameters()) / MIB,
        }


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
        Column("live_mib", "live tensors, MiB", ".0f"),
        Column("live_to_vae", "/ VAE", ".3f"),
        *(measured_on_gpu if DEVICE.type == "cuda" else []),
        Column("paper_mb", "paper, MB", ".0f"),
        Column("paper_mb_to_vae", "/ VAE", ".3f"),
        Column("img_per_s", "img/s", ".4g"),
        Column("iqr_img_per_s", "IQR", ".2g"),
        Column("speed_to_vae", "/ VAE"),
        Column("paper_img_per_s", "paper, img/s", ".4g"),
        Column("paper_speed_to_vae", "/ VAE"),
        Column("rounds", "rounds", "d"),
    ]


LABELS = {(name, dtype): f"{name}, {dtype}" for dtype in DTYPES for name in PAPER}
TABLE = Table(
    name="table3_encoders",
    title="Table 3: encoders",
    settings={
        "resolution": f"{RESOLUTION}x{RESOLUTION}",
        "batch": f"{BATCH} for the throughput, {MEMORY_BATCH} for the memory",
        "mode": "eval, inference_mode, eager, NCHW, no TF32",
    },
    columns=_columns(),
    order=list(LABELS.values()),
    notes=[
        "LiteVAE-M and -L cost more arithmetic than Stable Diffusion's encoder and are slower, in the paper too.",
        "GMAC: multiply-accumulates of convolutions and matrix products for one image. The VAE's include 1.07 for "
        "the two matrix products inside its attention, which other counts leave out.",
        "Live tensors: most bytes of parameters, images and activations alive at once, counted on meta tensors, "
        "without workspaces inside operations and an allocator's rounding and fragments.",
        "The paper's figures: one Quadro RTX 6000, batch 32; it states neither resolution nor precision nor what "
        "its memory counts.",
        "Throughput / VAE: from the median over rounds of the row's time and the VAE's right after it.",
    ],
)


def check(name: str, dtype: str, encoder: nn.Module, image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to time a wrong result: moments as with the operators' reference backend, finite, of the right shape."""
    moments = encoder(image)
    if moments.shape != (BATCH, 8, RESOLUTION // 8, RESOLUTION // 8):
        raise AssertionError(f"{name} must give 8 moments at an eighth of the image's side, got {moments.shape}")
    with monkeypatch.context() as patch:
        patch.setenv("LITEVAE_KERNELS_BACKEND", "reference")
        error = relative_error(moments, encoder(image))
    if error > TOLERANCE[dtype]:
        raise AssertionError(f"{name}: relative error {error:.1e} is above {TOLERANCE[dtype]:.0e}")


def encoding(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Callable[[], object]]:
    """The encoder, an image batch, and the step that is timed: the batch to its moments."""
    encoder = build(name, DEVICE, dtype)
    image = (torch.rand(BATCH, 3, RESOLUTION, RESOLUTION, device=DEVICE) * 2 - 1).to(dtype)
    return encoder, image, measure.consuming(encoder, itertools.repeat(image))


def cuda_mib(encoder: nn.Module, image: Tensor, step: Callable[[], object]) -> float:
    """torch.cuda.max_memory_allocated during a step, without what belongs to other rows."""
    own = sum(tensor.numel() * tensor.element_size() for tensor in (image, *encoder.parameters()))
    return (own + measure.peak_allocated_bytes(step)) / MIB


@pytest.mark.benchmark(group="table3_encoders", timer=measure.clock)
@pytest.mark.parametrize(("name", "dtype"), LABELS, ids=list(LABELS.values()))
@torch.inference_mode()
def test_table3_encoders(
    name: str, dtype: str, benchmark: BenchmarkFixture, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_vae = missing_package("diffusers")
    if name == "VAE" and no_vae:
        results.skip(TABLE, LABELS[name, dtype], no_vae)
        pytest.skip(no_vae)
    torch.manual_seed(0)
    encoder, image, step = encoding(name, DTYPES[dtype])
    check(name, dtype, encoder, image, monkeypatch)
    vae = None if no_vae else (encoder, image, step) if name == "VAE" else encoding("VAE", DTYPES[dtype])
    rivals = {"VAE": vae[2]} if vae and name != "VAE" else {}
    timing = measure.time_interleaved(benchmark, step, rivals, budget_s=12.0)
    if timing is None:
        return
    row: dict[str, Any] = {**costs(name, DTYPES[dtype]), "rounds": timing.rounds}
    row["img_per_s"] = BATCH / timing.median_s
    row["iqr_img_per_s"] = BATCH / timing.quartiles_s[0] - BATCH / timing.quartiles_s[1]
    row["paper_parameters_m"], row["paper_mb"], row["paper_img_per_s"] = PAPER[name]
    row["paper_mb_to_vae"], row["paper_speed_to_vae"] = (PAPER[name][i] / PAPER["VAE"][i] for i in (1, 2))
    if DEVICE.type == "cuda":
        row["cuda_mib"] = cuda_mib(encoder, image, step)
    if vae:
        row["live_to_vae"] = row["live_mib"] / costs("VAE", DTYPES[dtype])["live_mib"]
        row["speed_to_vae"] = 1 / timing.ratios.get("VAE", 1.0)
    if vae and DEVICE.type == "cuda":
        row["cuda_to_vae"] = row["cuda_mib"] / cuda_mib(*vae)
    benchmark.extra_info.update(row)
    results.add(TABLE, LABELS[name, dtype], row)
