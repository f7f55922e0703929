"""Which autoencoder learns more in the same steps: LiteVAE and Stable Diffusion's VAE under one recipe.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]

    python -m benchmarks.comparison          # small, on a CPU: under 20 minutes
    python -m benchmarks.comparison full     # LiteVAE-B and SD-VAE at their own size, on a GPU
    python -m benchmarks.comparison --minutes 8 full    # each for as long, instead of as many steps

Every row is a run of `python -m litevae.train comparison`: the same decoder, data (built-in photographs and dead
leaves), losses and steps. What is compared: the quality of held-out photographs, and images per second of training.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import figures
from benchmarks.harness import report
from benchmarks.harness.report import RESULTS, Column, Measured, Table
from benchmarks.harness.schedule import positive
from benchmarks.rivals.encoders import SD_WIDTHS
from litevae.runs.config import ConfigError
from litevae.runs.recipes import load_config
from litevae.training.config import RunConfig
from litevae_kernels.files import check_folder

ROWS: dict[str, list[str]] = {
    "SD-VAE": ["model=sd-vae"],
    "LiteVAE-S": ["model.size=S"],
    "LiteVAE-B": [],
    "LiteVAE-B, SMC decoder": ["model=smc"],
    "LiteVAE-B, no high-frequency losses": ["loss=no-high-frequency"],
    "LiteVAE-B, wavelet start": ["train.initialization=wavelet", "model.decoder_outer_norm=false"],
    "LiteVAE-B, SMC decoder, wavelet start": ["train.initialization=wavelet", "model=smc"],
}
# Beside the recipe's own values, which are the small ones. SD-VAE's encoder is Stable Diffusion's at either size.
SIZES: dict[str, list[str]] = {
    "small": ["train.device=cpu"],
    "full": [
        f"model.block_out_channels={list(SD_WIDTHS)}",
        "data.crop_size=256",
        "train.batch_size=16",
        "train.learning_rate=1e-4",
        "train.steps=5000",
        "train.evaluate_every=500",
        "train.mixed_precision=bf16",
        "train.device=cuda",
    ],
}
ENDLESS = "train.steps=10000000"
FOR_MINUTES = ["train.schedule=constant", "train.checkpoint_every=1000000", ENDLESS]  # a stop saves a checkpoint, too
SD_ENCODER = f"model.encoder_channels={list(SD_WIDTHS)}"

COLUMNS = [
    Column("row", "autoencoder"),
    Column("encoder_m", "encoder, M", ".2f"),
    Column("decoder_m", "decoder, M", ".2f"),
    Column("psnr", "PSNR, dB"),
    Column("ssim", "SSIM", ".3f"),
    Column("lpips_random_trunk", "LPIPS, random trunk", ".4f"),
    Column("images_per_second", "img/s", ".3g"),
    Column("speed_to_sd", "/ SD-VAE"),
]


def run(label: str, overrides: Sequence[str], folder: Path, minutes: float | None) -> None:
    """Train one row, for so many minutes or its steps. With `minutes`, a run that is there goes on.

    Raises:
        subprocess.CalledProcessError: the run failed; what it said stands on the terminal.
    """
    arguments = ["comparison", *overrides, f"run.dir={folder}"]
    print(f"\n== {label}: python -m litevae.train {' '.join(arguments)}", flush=True)
    if minutes is None:
        train(arguments)
    else:
        train(["--resume", str(folder), ENDLESS] if newest_step(folder) >= 0 else arguments, 60 * minutes)
        train(["--resume", str(folder), f"train.steps={newest_step(folder) + 1}"])  # the last step evaluates and saves


def newest_step(folder: Path) -> int:
    return max((int(path.stem.partition("-")[2]) for path in folder.glob("checkpoints/step-*.pt")), default=-1)


def train(arguments: Sequence[str], seconds: float | None = None) -> None:
    """One run, in a process of its own: none finds a warm allocator. After `seconds` it is told to save and stop."""
    process = subprocess.Popen([sys.executable, "-m", "litevae.train", *arguments])
    expected = [0]
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        expected.append(128 + signal.SIGTERM)
    finally:  # also after Ctrl-C
        process.terminate()
        process.wait()
    if process.returncode not in expected:
        raise subprocess.CalledProcessError(process.returncode, process.args)


def numbers(folder: Path) -> dict[str, Any]:
    """The numbers of a run, and its evaluations for the curves."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    # The first line has the first calls of everything in it.
    speeds = [line["images_per_second"] for line in lines if line["kind"] == "train"]
    names = ("psnr", "ssim", "lpips_random_trunk", "step")
    return {
        **parameters(folder),
        **{name: evaluations[-1][name] for name in names},
        "images_per_second": median(speeds[1:] or speeds),
        "curve": [[line["step"], line["psnr"]] for line in evaluations],
    }


def parameters(folder: Path) -> dict[str, float]:
    """Millions of parameters of the encoder and the decoder that a run has saved."""
    from litevae.loading import load_model

    model: Any = load_model(folder)
    parts = {"encoder_m": model.encoder, "decoder_m": model.decoder}
    return {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}


def table(size: str, settings: Mapping[str, Any], minutes: float | None) -> Table:
    name = "comparison" if size == "small" else f"comparison_{size}"
    return Table(
        name=name if minutes is None else f"{name}_minutes",
        title="LiteVAE and Stable Diffusion's VAE under one recipe",
        settings=settings if minutes is None else {**settings, "steps": f"as many as {minutes:g} minutes allow"},
        columns=COLUMNS if minutes is None else [*COLUMNS, Column("step", "steps", "d")],
        order=list(ROWS),
        notes=[
            "Held-out photographs (chelsea, coffee) after training; one seed. LPIPS has a random trunk: no measure of "
            "perception, but the same for all rows.",
            "SD-VAE has Stable Diffusion's encoder and the decoder of the other rows. Img/s: median over the log lines "
            "of a run, forward, backward and update; the runs came one after the other.",
            "Wavelet start: train.initialization=wavelet; beside GroupNorm without the norm before the last "
            "convolution, whose groups of 2 channels it cannot pass.",
        ],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train every row; write the table and the figure to the results. Returns 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__.splitlines()[0])
    parser.add_argument("size", nargs="?", choices=SIZES, default="small", help="small: a CPU; full: a GPU")
    parser.add_argument("overrides", nargs="*", help="section.key=value for every row, e.g. train.steps=20")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table and the figure go")
    parser.add_argument("--runs", type=Path, help="keep the runs in this folder")
    parser.add_argument("--minutes", type=positive, help="train each row for so long; one that is in --runs goes on")
    parser.add_argument("--only", choices=ROWS, action="append", help="train this row; of others, show what --runs has")
    arguments = parser.parse_args(argv)
    minutes, chosen = arguments.minutes, arguments.only or list(ROWS)
    common = [*SIZES[arguments.size], *([] if minutes is None else FOR_MINUTES), *arguments.overrides]
    overrides = {row: [*own, *([SD_ENCODER] if row == "SD-VAE" else []), *common] for row, own in ROWS.items()}
    try:
        check_folder("--results", arguments.results)
        if arguments.runs is not None:
            check_folder("--runs", arguments.runs)
        for row in chosen:
            load_config(RunConfig, "comparison", overrides[row])
        settings = settings_of(load_config(RunConfig, "comparison", common))
    except (ValueError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = ["python", "-m", "benchmarks.comparison", arguments.size, *arguments.overrides]
    conditions = report.conditions(shlex.join(command))
    measured = Measured(table(arguments.size, settings, minutes))
    with tempfile.TemporaryDirectory() as temporary:
        for label in ROWS:
            name = label.replace(", ", "-").replace(" ", "-").lower()
            folder: Path = (arguments.runs or Path(temporary)) / name
            if label in chosen:
                run(label, overrides[label], folder, minutes)
            elif not (folder / "model").exists():
                continue
            measured.rows[label] = row = {"row": label, **numbers(folder)}
            if "SD-VAE" in measured.rows:
                row["speed_to_sd"] = row["images_per_second"] / measured.rows["SD-VAE"]["images_per_second"]
    document = report.document(measured, conditions)
    print(report.markdown(document))
    print(report.write(document, arguments.results))
    figures.write(arguments.results)
    return 0


def settings_of(config: RunConfig) -> dict[str, Any]:
    """What all rows share, in words."""
    return {
        "steps": config.train.steps,
        "batch": f"{config.train.batch_size} crops of {config.data.crop_size} pixels",
        "images": f"{config.data.source}",
        "precision": config.train.mixed_precision,
        "decoder": ", ".join(map(str, config.model.architecture.block_out_channels or [])),
        "losses": ", ".join(f"{name} ({weight:g})" for name, weight in config.loss.weights.items() if weight),
    }


if __name__ == "__main__":
    sys.exit(main())
