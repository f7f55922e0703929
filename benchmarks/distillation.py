"""How near does a light encoder come to the latents of a trained autoencoder, and what does encoding cost then?

image -> [teacher's encoder, student's encoder] -> latent -> [teacher's decoder]

    python -m litevae.train comparison model=sd-vae 'model.block_out_channels=[32,32,64,64]' model.layers_per_block=1 \\
        train.steps=8000 train.batch_size=4 train.evaluate_lpips=false run.dir=runs/teacher
    python -m benchmarks.distillation --teacher runs/teacher --minutes 15 --runs runs/distillation    # on a CPU

Every row is a run of `python -m litevae.train distill-quickstart`, one after the other, with as many steps as fit into
the minutes at the speed of a trial. A run that is finished in --runs is taken as it is. Then the encoders are timed in
turns, Stable Diffusion's at its own width too: random weights, for its speed alone.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import report
from benchmarks.harness.report import RESULTS, Column, Measured, Table
from benchmarks.harness.schedule import positive
from litevae.cost import copy_shapes, multiply_accumulates, parameter_count
from litevae.distillation.config import DistillationConfig
from litevae.evaluation.autoencoders import diffusers_model
from litevae.loading import load_model
from litevae.models.baseline import StableDiffusionVAE
from litevae.runs.config import ConfigError
from litevae.runs.recipes import load_config
from litevae_kernels.files import check_folder

SIZES = ("S", "B")
BATCH_SIZE = 4
SIDE, ROUNDS = 256, 15
BATCH = [f"train.batch_size={BATCH_SIZE}", "train.device=cpu"]
TRIAL = ["train.steps=20", "train.log_every=5", "train.evaluate_every=1000", "train.checkpoint_every=1000"]
FULL_SIZE = "SD-VAE's encoder at its own width, untrained"

COLUMNS = [
    Column("row", "encoder"),
    Column("encoder_m", "parameters, M", ".2f"),
    Column("gmac", f"GMAC at {SIDE}x{SIDE}", ".1f"),
    Column("encode_per_second", "encode, img/s", ".3g"),
    Column("steps", "steps", "d"),
    Column("psnr", "PSNR, dB"),
    Column("below_teacher", "below the teacher, dB"),
    Column("psnr_to_teacher", "PSNR to the teacher's, dB"),
    Column("latent_error", "latent error", ".4f"),
    Column("cosine", "smallest cosine", ".3f"),
]


def train(*arguments: str) -> None:
    """One run, in a process of its own.

    Raises:
        subprocess.CalledProcessError: the run failed; what it said stands on the terminal.
    """
    subprocess.run([sys.executable, "-m", "litevae.train", *arguments], check=True)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Those of metrics.jsonl of one kind; none without a run."""
    file = folder / "metrics.jsonl"
    found = map(json.loads, file.read_text(encoding="utf-8").splitlines()) if file.exists() else ()
    return [line for line in found if line["kind"] == kind]


def distill(size: str, words: Sequence[str], minutes: float, folder: Path) -> None:
    """A finished run in `folder`: the one that is there, that goes on, or a new one."""
    if lines(folder, "end"):
        return
    if any(folder.glob("checkpoints/step-*.pt")):
        train("--resume", str(folder))
        return
    own = ["distill-quickstart", *words, f"model.size={size}", *BATCH]
    trial = folder.with_name(f"{folder.name}-trial")
    shutil.rmtree(trial, ignore_errors=True)
    train(*own, *TRIAL, f"run.dir={trial}")
    speed = max(line["images_per_second"] for line in lines(trial, "train"))
    steps = max(1, round(60 * minutes * speed / BATCH_SIZE))
    every = [f"train.{what}_every={max(1, steps // 10)}" for what in ("evaluate", "checkpoint")]
    train(*own, *every, f"train.steps={steps}", f"run.dir={folder}")


def row_of(label: str, folder: Path) -> dict[str, Any]:
    """The numbers of a finished run."""
    last = lines(folder, "evaluation")[-1]
    return {
        "row": label,
        "steps": last["step"],
        "below_teacher": last["teacher_psnr"] - last["psnr"],
        "cosine": min(last["cosines"]),
        **{name: last[name] for name in ("psnr", "psnr_to_teacher", "latent_error")},
    }


def encode_speeds(encoders: dict[str, Callable[[Tensor], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Images per second by label, float32, one image at a time on one thread; in turns, of each the fastest call."""
    image = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    times: dict[str, list[float]] = {label: [] for label in encoders}
    with torch.inference_mode():
        for _ in range(rounds + 1):  # the first has everything's first call in it
            for label, encode in encoders.items():
                start = time.thread_time()
                encode(image)
                times[label].append(time.thread_time() - start)
    return {label: 1 / min(values[1:]) for label, values in times.items()}


def costs(model: Any) -> dict[str, Any]:
    """Parameters and arithmetic of encoding."""
    with torch.no_grad():
        macs = multiply_accumulates(
            copy_shapes(model, torch.device("meta")).encode, torch.empty(1, 3, SIDE, SIDE, device="meta")
        )
    return {"encoder_m": parameter_count(model.encoder, model.quant_conv) / 1e6, "gmac": macs / 1e9}


def measure(teacher: Path, runs: Path, sizes: Sequence[str] = SIZES) -> dict[str, dict[str, Any]]:
    """The rows: the teacher, its students, and a full-size encoder for its speed."""
    folders = {f"LiteVAE-{size}": runs / size.lower() for size in sizes}
    last = lines(next(iter(folders.values())), "evaluation")[-1]
    torch.manual_seed(0)
    models: dict[str, Any] = {"teacher": load_model(teacher), **{k: load_model(v) for k, v in folders.items()}}
    models[FULL_SIZE] = StableDiffusionVAE.from_architecture()
    speeds = encode_speeds({label: model.eval().encode for label, model in models.items()})
    rows: dict[str, dict[str, Any]] = {"teacher": {"row": "teacher", "psnr": last["teacher_psnr"]}}
    rows |= {label: row_of(label, folder) for label, folder in folders.items()}
    rows[FULL_SIZE] = {"row": FULL_SIZE}
    return {
        label: {**row, **costs(diffusers_model(models[label])), "encode_per_second": speeds[label]}
        for label, row in rows.items()
    }


def table(teacher: Path, minutes: float) -> Table:
    widths = diffusers_model(load_model(teacher)).config.block_out_channels
    return Table(
        name="distillation",
        title="A light encoder for the latents of a trained autoencoder",
        settings={
            "teacher": f"SD-VAE's architecture, widths {', '.join(map(str, widths))}, trained here",
            "training": f"{minutes:g} minutes a student at most, batches of {BATCH_SIZE} crops of 64x64",
            "data": "photographs and dead leaves",
        },
        columns=COLUMNS,
        order=["teacher", *(f"LiteVAE-{size}" for size in SIZES), FULL_SIZE],
        notes=[
            "PSNR on chelsea and coffee, 256x256, which neither teacher nor students have seen: what the teacher's "
            "decoder makes of the encoder's mean. Latent error: squared error over the variance of the teacher's "
            "means.",
            "Encode: float32, one image, one thread, in turns, the fastest of its calls.",
            "The teacher is far narrower than Stable Diffusion's, whose encoder the last row times: a student saves "
            "what lies between its row and that one.",
        ],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train the students, write the table and the picture to the results. Returns 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distillation", description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="section.key=value for every student")
    parser.add_argument("--teacher", type=Path, required=True, help="the run or folder of an AutoencoderKL")
    parser.add_argument("--minutes", type=positive, default=15.0, help="what every training may take (15)")
    parser.add_argument("--runs", type=Path, default=Path("runs/distillation"), help="the runs go here")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table and the picture go")
    parser.add_argument("--only", choices=SIZES, nargs="+", default=list(SIZES), help="train these students alone")
    arguments = parser.parse_args(argv)
    words = [f"teacher={arguments.teacher}", *arguments.overrides]
    try:
        for option in ("results", "runs"):
            check_folder(f"--{option}", getattr(arguments, option))
        load_config(DistillationConfig, "distill-quickstart", words)
        measured = Measured(table(arguments.teacher, arguments.minutes))
    except (ValueError, ConfigError, OSError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    command = ["python", "-m", "benchmarks.distillation", "--teacher", "RUN", "--minutes", f"{arguments.minutes:g}"]
    conditions = report.conditions(shlex.join([*command, *arguments.overrides]))
    for size in arguments.only:
        distill(size, words, arguments.minutes, arguments.runs / size.lower())
    measured.rows |= measure(arguments.teacher, arguments.runs, arguments.only)
    document = report.document(measured, conditions)
    print(report.markdown(document))
    print(report.write(document, arguments.results))
    picture = arguments.runs / arguments.only[0].lower() / "reconstructions.png"
    shutil.copyfile(picture, arguments.results / "distillation-cpu.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
