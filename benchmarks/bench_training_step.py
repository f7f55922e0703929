"""What does an update of training cost? As `litevae.train` makes it, beside the plain loop that one writes instead.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]

The paper's recipes (imagenet128, imagenet256-full) with the discriminator from the first step: L1, LPIPS, KL, wavelet,
Gaussian and adversarial term, the discriminator's own step, and both Adams. Batches are on the device. The rows:

    SD-VAE                               diffusers' AutoencoderKL under the same recipe (model=sd-vae)
    LiteVAE-B, plain loop                the same losses and gradients, eager and NCHW: benchmarks/rivals/plain_loop.py
    LiteVAE-B, plain loop, two forwards  the same, with a forward pass for each optimizer, as latent diffusion has it
    LiteVAE-S, B                         as they are
    LiteVAE-B, gradient checkpointing    train.gradient_checkpointing=true; on a GPU, in bfloat16
    LiteVAE-B, torch.compile             train.compile=true; on a GPU, in bfloat16
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import measure
from benchmarks.harness.available import missing_compiler, missing_import
from benchmarks.harness.measure import MIB, Timing
from benchmarks.harness.report import Column, Results, Table
from benchmarks.rivals.training_rows import (
    BATCH,
    COMPILED,
    FLOAT32,
    ON_GPU,
    OURS,
    PLAIN,
    SD_VAE,
    Training,
    cases,
    check,
)

CASES = cases(ON_GPU)
PLAIN_FLOAT32, OURS_AT_128 = f"{PLAIN}, {FLOAT32}", f"{OURS}, 128x128"  # rivals that are rows of other cases


def label(name: str, resolution: int, precision: str) -> str:
    return f"{name}, {resolution}x{resolution}, {precision}"


TABLE = Table(
    name="training_step",
    title="An update of training",
    settings={
        "batch": BATCH,
        "losses": "as in the recipes imagenet128 and imagenet256-full, the discriminator from the first step",
        "mode": "train, eager, float32 parameters, no TF32 but in the rows tf32, both optimizer steps",
    },
    columns=[
        Column("row", "autoencoder"),
        Column("img_per_s", "img/s", ".4g"),
        Column("iqr_img_per_s", "IQR", ".2g"),
        Column("speed_to_plain", "/ plain loop"),
        Column("speed_to_plain_float32", "/ plain loop in float32"),
        Column("speed_to_sd", "/ SD-VAE"),
        Column("speed_of_128", "at 128x128 / this"),
        Column("peak_mib", "peak memory, MiB", ".0f"),
        Column("peak_to_plain", "/ plain loop", ".3f"),
        Column("peak_to_plain_float32", "/ plain loop in float32", ".3f"),
        Column("peak_to_sd", "/ SD-VAE", ".3f"),
        Column("rounds", "rounds", "d"),
    ],
    order=[label(name, *case) for case in CASES for name in CASES[case]],
    notes=[
        "The rows of one size and precision take turns, an update of each in every round. Ratios of img/s: the median "
        "over rounds of the other row's time and this one's, at the same size and, unless it says float32, precision.",
        "Peak memory: weights, Adam's moments, and the most that an update has from torch's allocator beside them.",
        "LPIPS: on VGG16 with random weights, whose time and memory are the trained ones'.",
        "Plain loop: diffusers' decoder, the package lpips, PyTorch's GroupNorm, SiLU, spectral norm and Adam, the "
        "wavelets by slicing. Two forwards: the discriminator's step reconstructs again, without a graph.",
    ],
)


@pytest.mark.benchmark(group="training_step", timer=measure.clock)
@pytest.mark.parametrize(("resolution", "precision"), CASES, ids=[f"{side}x{side}, {name}" for side, name in CASES])
def test_training_step(resolution: int, precision: str, benchmark: BenchmarkFixture, results: Results) -> None:
    rows = available(resolution, precision, results)
    trainings = {name: Training(name, resolution, precision) for name in rows}
    for training in trainings.values():
        check(training)
    rivals = {name: training for name, training in trainings.items() if name != OURS}
    if precision != FLOAT32 and PLAIN in rows:
        rivals[PLAIN_FLOAT32] = Training(PLAIN, resolution, FLOAT32)
    if resolution == 256:
        rivals[OURS_AT_128] = Training(OURS, 128, precision)
    timing = measure.time_interleaved(benchmark, trainings[OURS], rivals, budget_s=40.0)
    if timing is None:
        return
    peaks = {name: peak_mib(training) for name, training in {OURS: trainings[OURS], **rivals}.items()}
    times = {OURS: timing.own_s, **timing.rivals_s}
    for name in rows:
        others = {rival: seconds for rival, seconds in times.items() if rival != name}
        row = row_of(name, Timing(times[name], others, timing.iterations), peaks, precision)
        benchmark.extra_info[name] = row
        results.add(TABLE, label(name, resolution, precision), row)


def available(resolution: int, precision: str, results: Results) -> list[str]:
    """The case's rows that can be measured here; skips the test if none can."""
    names = CASES[resolution, precision]
    for package in ("accelerate", "omegaconf", "torchvision", "lpips"):
        if reason := missing_import(package):
            for name in names:
                results.skip(TABLE, label(name, resolution, precision), reason)
            pytest.skip(reason)
    reasons = {COMPILED: missing_compiler()}
    for name in names:
        if reasons.get(name):
            results.skip(TABLE, label(name, resolution, precision), reasons[name])
    return [name for name in names if not reasons.get(name)]


def peak_mib(training: Training) -> float:
    """Weights, moments, and the most that an update has from the allocator beside them."""
    return (training.state_bytes() + measure.peak_allocated_bytes(training)) / MIB


def row_of(name: str, timing: Timing, peaks: Mapping[str, float], precision: str) -> dict[str, float]:
    """Ratios to the plain loop are for rows of the same model."""
    row = {
        "img_per_s": BATCH / timing.median_s,
        "iqr_img_per_s": BATCH / timing.quartiles_s[0] - BATCH / timing.quartiles_s[1],
        "peak_mib": peaks[name],
        "rounds": timing.rounds,
    }
    in_float32 = PLAIN if precision == FLOAT32 else PLAIN_FLOAT32
    yardsticks = {"sd": SD_VAE}
    if name.startswith(OURS):
        yardsticks |= {"plain": PLAIN, "plain_float32": in_float32}
    for key, yardstick in yardsticks.items():
        if yardstick in peaks:
            row[f"speed_to_{key}"] = 1 / timing.ratios.get(yardstick, 1.0)
            row[f"peak_to_{key}"] = peaks[name] / peaks[yardstick]
    if name == OURS and OURS_AT_128 in peaks:
        row["speed_of_128"] = timing.ratios[OURS_AT_128]
    return row
