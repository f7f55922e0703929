"""What a model learns in so many minutes: a run of `python -m litevae.train` at 128 and then at 256 pixels.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]

    python -m benchmarks.harness.gpu_run.training litevae-b-bf16 --minutes 8 --output DIR

Every run: the recipe `comparison` (photographs and dead leaves, held-out photographs) with `COMMON`, its own of
`RUNS`, and those of one stage after the other. A stage ends when its time is over; the run is then resumed for the
next. DIR/runs holds the runs; the table in DIR/results is made of all that are there.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import report
from benchmarks.harness.report import Column, Measured, Table
from benchmarks.rivals.encoders import SD_WIDTHS
from litevae_kernels.files import unused

RECIPE = "comparison"
COMMON = [
    f"model.block_out_channels={list(SD_WIDTHS)}",
    "model.layers_per_block=2",
    "data.max_downscale=4.0",
    "data.evaluation_size=256",
    "train.learning_rate=1e-4",
    "train.schedule=constant",  # nobody knows how many steps there will be
    "train.warmup_steps=100",
    "train.mixed_precision=bf16",
    "train.steps=10000000",
    "train.log_every=20",
    "train.evaluate_every=500",
    "train.checkpoint_every=1000000",  # but at the end of a stage
    "train.keep_checkpoints=1",
    "train.tensorboard=false",
]
RUNS: dict[str, list[str]] = {
    "litevae-b-bf16": ["model.size=B"],
    "sd-vae-bf16": ["model=sd-vae"],
    "litevae-b-fp16": ["model.size=B", "train.mixed_precision=fp16"],
}
STAGES: dict[int, list[str]] = {  # by the side of the crops
    128: ["data.crop_size=128", "train.batch_size=32"],
    256: ["data.crop_size=256", "train.batch_size=16"],
}
SMALL = [  # to try it on a CPU
    "model.block_out_channels=[32,32,32,32]",
    "model.layers_per_block=1",
    "data.evaluation_size=64",
    "train.log_every=1",
    "train.evaluate_every=1000",
]
FIRST_STAGE = 0.6  # of the time for training
END_S = 40.0  # for the last evaluation, the model and the figures
SAVE_S = 60.0  # that a stage may take to save
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)  # in the middle of training; before its first step

QUALITY = ("psnr", "ssim", "lpips_random_trunk")
NOTES = [
    "Held-out photographs (chelsea, coffee), after the run; one seed. LPIPS has a random trunk: no measure of "
    "perception, but the same for all rows.",
    "Img/s: median over the log lines of a stage, forward, backward and update. The runs came one after the other.",
    "fp16: with a scaled loss; steps whose gradients are not finite are skipped, and counted.",
]
COLUMNS = [
    Column("row", "run"),
    Column("steps", "steps", "d"),
    Column("images_k", "images, thousands", ".1f"),
    Column("images_per_second_128", "img/s at 128", ".4g"),
    Column("images_per_second_256", "img/s at 256", ".4g"),
    Column("psnr", "PSNR, dB"),
    Column("ssim", "SSIM", ".3f"),
    Column("lpips_random_trunk", "LPIPS, random trunk", ".4f"),
    Column("skipped_steps", "skipped steps", "d"),
    Column("finite", "all losses finite"),
]


def train(name: str, minutes: float, folder: Path, small: bool) -> int:
    """The stages of one run, and its end; returns the exit code of the first command that failed, or 0."""
    start = time.monotonic()
    training_s = max(60 * minutes - min(END_S, 30 * minutes), 1.0)
    ends = dict(zip(STAGES, (start + FIRST_STAGE * training_s, start + training_s), strict=True))
    command = [RECIPE, *COMMON, *RUNS[name], *(SMALL if small else []), f"run.dir={folder}"]
    for side, end in ends.items():
        code = litevae_train([*command, *stages(small)[side]], end - time.monotonic())
        if code not in (0, *STOPPED):
            return code
        command = ["--resume", str(folder)]
    return litevae_train([*command, *stages(small)[256], f"train.steps={saved_step(folder)}"], SAVE_S)


def stages(small: bool) -> dict[int, list[str]]:
    return {side: [f"data.crop_size={side // 4}", "train.batch_size=2"] for side in STAGES} if small else STAGES


def saved_step(folder: Path) -> int:
    return max(int(path.stem.partition("-")[2]) for path in (folder / "checkpoints").glob("step-*.pt"))


def litevae_train(arguments: Sequence[str], limit_s: float) -> int:
    """`python -m litevae.train`, told to stop and save once `limit_s` are over."""
    command = [sys.executable, "-m", "litevae.train", *arguments]
    print(f"\n== {' '.join(command[1:])}", flush=True)
    process = subprocess.Popen(command)
    try:
        return process.wait(max(limit_s, 1.0))
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait(SAVE_S)
    finally:
        if process.poll() is None:
            process.kill()


def row(folder: Path, small: bool) -> dict[str, Any]:
    """The numbers of one run, from its metrics.jsonl; of a run that ended early, what there is."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    by_stage: list[list[dict[str, Any]]] = [[]]  # every "resume" begins the next
    for line in map(json.loads, text.splitlines()):
        by_stage.append([]) if line["kind"] == "resume" else by_stage[-1].append(line)
    values: dict[str, Any] = {"steps": 0, "images_k": 0.0}
    losses: list[float | None] = []
    for (side, overrides), lines in zip(stages(small).items(), by_stage, strict=False):
        trained = [line for line in lines if line["kind"] == "train"]
        if not trained:
            continue
        batch = int(next(word.partition("=")[2] for word in overrides if word.startswith("train.batch_size=")))
        values["images_k"] += (trained[-1]["step"] - values["steps"]) * batch / 1000
        values["steps"], values["skipped_steps"] = trained[-1]["step"], trained[-1]["skipped_steps"]
        # The first line has the first calls of everything in it.
        values[f"images_per_second_{side}"] = median(line["images_per_second"] for line in trained[1:] or trained)
        losses += [value for line in trained for value in line["loss"].values()]
    evaluations = [line for lines in by_stage for line in lines if line["kind"] == "evaluation"]
    values["finite"] = "yes" if losses and None not in losses else "no"
    values["curve"] = [[line["step"], line["psnr"]] for line in evaluations]
    return {**values, **{name: evaluations[-1].get(name) for name in QUALITY if evaluations}}


def write_table(output: Path, settings: dict[str, Any], small: bool) -> None:
    """All runs of DIR/runs, as one table."""
    folders = [path.parent for path in sorted((output / "runs").glob("*/metrics.jsonl"))]
    conditions = report.conditions("python -m benchmarks.harness.gpu_run train_litevae train_sd_vae train_fp16")
    table = Table("training_minutes", "Trained for minutes", settings, COLUMNS, [of.name for of in folders], NOTES)
    rows = {of.name: {"row": of.name, **row(of, small)} for of in folders}
    document = report.document(Measured(table, rows), conditions)
    print(report.markdown(document), report.write(document, output / "results"), sep="\n", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code of the run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness.gpu_run.training")
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--minutes", type=float, required=True, help="of everything, from the start of the program")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--small", action="store_true", help="to try it on a CPU")
    arguments = parser.parse_args(argv)
    output, small = arguments.output, arguments.small
    settings = {
        "minutes": f"{arguments.minutes:g}, {100 * FIRST_STAGE:.0f} % at 128 pixels; the rest, less the end, at 256",
        "all runs": " ".join(COMMON),
        **{f"{side}x{side}": " ".join(overrides) for side, overrides in stages(small).items()},
    }
    try:
        return train(arguments.run, arguments.minutes, unused(output / "runs" / arguments.run), small)
    finally:
        write_table(output, settings, small)


if __name__ == "__main__":
    sys.exit(main())
