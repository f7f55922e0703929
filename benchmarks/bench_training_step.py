"""What an update of training costs, as `litevae.train` makes it, beside the plain loop that one writes instead.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]

The paper's recipes (imagenet128, imagenet256-full) with the discriminator from the first step: L1, LPIPS, KL, wavelet,
Gaussian and adversarial term, the discriminator's own step, and both Adams. Batches are on the device. The rows:

    SD-VAE                               diffusers' AutoencoderKL under the same recipe (model=sd-vae)
    LiteVAE-B, plain loop                the same losses and gradients, eager and NCHW: benchmarks/rivals/plain_loop.py
    LiteVAE-B, plain loop, two forwards  the same, with a forward pass for each optimizer, as latent diffusion has it
    LiteVAE-B, gradient checkpointing    train.gradient_checkpointing=true; on a GPU, in bfloat16
    LiteVAE-B, torch.compile             train.compile=true; on a GPU, in bfloat16
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import measure
from benchmarks.harness.available import emulated, missing_compiler, missing_import
from benchmarks.harness.measure import MIB, Timing
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import measures
from benchmarks.harness.schedule import Share
from benchmarks.harness.turns import Turns
from benchmarks.rivals.training_rows import (
    BATCHES,
    BFLOAT16,
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
GMAC_AN_IMAGE = 500.0  # as long as an update at 128x128 takes, roughly; it decides the batch alone
CALLS = 4  # that every row needs, more or less: two or three for its check, one to warm up, one round
PLAIN_FLOAT32, OURS_AT_HALF = f"{PLAIN}, {FLOAT32}", f"{OURS}, half the side"  # rivals that are rows of other cases


def label(name: str, resolution: int, precision: str) -> str:
    return f"{name}, {resolution}x{resolution}, {precision}"


TABLE = Table(
    name="training_step",
    title="An update of training",
    settings={
        "losses": "as in the recipes imagenet128 and imagenet256-full, the discriminator from the first step",
        "mode": "train, eager, float32 parameters, no TF32 but in the rows tf32, both optimizer steps",
    },
    columns=[
        Column("row", "autoencoder"),
        Column("batch", "batch", "d"),
        Column("img_per_s", "img/s", ".4g"),
        Column("iqr_img_per_s", "IQR", ".2g"),
        Column("speed_to_plain", "/ plain loop"),
        Column("speed_to_plain_float32", "/ plain loop in float32"),
        Column("speed_to_sd", "/ SD-VAE"),
        Column("speed_of_half", "at half the side / this"),
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


class TrainingCase(NamedTuple):
    """The rows of one test."""

    resolution: int
    precision: str

    @property
    def names(self) -> list[str]:
        return CASES[self]

    @property
    def label(self) -> str:
        return f"{self.resolution}x{self.resolution}, {self.precision}"

    @property
    def labels(self) -> list[str]:
        return [label(name, *self) for name in self.names]

    @property
    def unavailable(self) -> str:
        return next(filter(None, map(missing_import, ("accelerate", "omegaconf", "torchvision", "lpips"))), "")

    @property
    def emulated(self) -> str:
        return emulated(torch.bfloat16) if self.precision == BFLOAT16 else ""


@measures(
    TABLE, [TrainingCase(*case) for case in CASES], seconds=lambda case: (1 + len(case.names)) * case.resolution / 5
)
def test_training_step(row: TrainingCase, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    """All rows of a size and precision, which take turns."""
    gmac = len(row.names) * GMAC_AN_IMAGE * (row.resolution / 128) ** 2
    precision = torch.bfloat16 if row.precision == BFLOAT16 else torch.float32
    batch = share.largest(BATCHES, lambda size: size * CALLS * gmac * measure.seconds_a_gmac(precision))
    turns, peaks = Turns(share), dict[str, float]()
    set_up(row, batch, turns, peaks)
    timings = turns.time(benchmark, OURS)
    for name, reason in turns.left_out.items():
        results.skip(TABLE, label(name, *row), reason)
    if timings is None:
        return
    for name in set(row.names) & set(timings):
        values = values_of(name, batch, timings[name], peaks, row.precision)
        benchmark.extra_info[name] = values
        results.add(TABLE, label(name, *row), values)


def set_up(row: TrainingCase, batch: int, turns: Turns, peaks: dict[str, float]) -> None:
    """Every row, checked and warm, and the rows of other cases that ratios are formed with; the peak memory of each.

    The first one's time predicts the others'.
    """
    trainings = {name: (name, *row) for name in (OURS, *row.names)}
    if row.precision != FLOAT32 and PLAIN in row.names:
        trainings[PLAIN_FLOAT32] = PLAIN, row.resolution, FLOAT32
    if (row.resolution // 2, row.precision) in CASES:
        trainings[OURS_AT_HALF] = OURS, row.resolution // 2, row.precision
    for name, what in trainings.items():
        expected_s = turns.rounds[OURS].expected_s if OURS in turns.rounds else 0.0
        if name == COMPILED and (reason := missing_compiler()):
            turns.left_out[name] = reason
        elif turns.expects(name, expected_s):
            training = Training(*what, batch)
            if name in row.names:
                check(training)
            if name == COMPILED:
                training()
            start = measure.clock()
            peaks[name] = peak_mib(training)
            turns.add(name, training, measure.clock() - start)


def peak_mib(training: Any) -> float:
    """Weights, moments, and the most that an update has from the allocator beside them, in one call."""
    training.make_moments()
    return (training.state_bytes() + measure.peak_allocated_bytes(training)) / MIB


def values_of(
    name: str, batch: int, timing: Timing, peaks: Mapping[str, float], precision: str
) -> dict[str, float | None]:
    """Ratios to the plain loop are for rows of the same model."""
    values: dict[str, Any] = {"batch": batch, **timing.images_per_second(batch), "peak_mib": peaks[name]}
    in_float32 = PLAIN if precision == FLOAT32 else PLAIN_FLOAT32
    yardsticks = {"sd": SD_VAE}
    if name.startswith(OURS):
        yardsticks |= {"plain": PLAIN, "plain_float32": in_float32}
    for key, yardstick in yardsticks.items():
        if yardstick in peaks:
            values[f"speed_to_{key}"] = 1 / timing.ratios.get(yardstick, 1.0)
            values[f"peak_to_{key}"] = peaks[name] / peaks[yardstick]
    if name == OURS and OURS_AT_HALF in peaks:
        values["speed_of_half"] = timing.ratios[OURS_AT_HALF]
    return values
