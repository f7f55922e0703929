"""Which encoder of the paper's appendices learns most in the same time? LiteVAE-B with each, under one recipe.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]

    python -m benchmarks.comparison_encoders --minutes 6 --seeds 0 1 --runs runs/encoders    # on a CPU

Every row is some runs of `python -m litevae.train comparison`, one for each seed. Its speed is measured first, alone on
one core; all its runs then have as many steps as fit into the minutes at that speed, so that what else the machine does
meanwhile changes no result. The runs go side by side, one to a core. The same command goes on where it was stopped.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from statistics import mean
from typing import Any

import torch

from benchmarks import figures
from benchmarks.comparison import newest_step, parameters, settings_of
from benchmarks.harness import report
from benchmarks.harness.report import RESULTS, Column, Measured, Table
from benchmarks.harness.schedule import positive
from litevae.data import HeldOutImage
from litevae.data.config import DataConfig
from litevae.data.crops import random_crop
from litevae.data.held_out import hold_out_dead_leaves
from litevae.data.image_sources import BUILT_IN_HELD_OUT, built_in_paths
from litevae.data.images import read_image, to_tensor
from litevae.evaluation.autoencoders import BicubicBaseline
from litevae.evaluation.held_out import evaluate
from litevae.evaluation.instruments import Instruments
from litevae.evaluation.weights import WeightSource
from litevae.loading import load_model
from litevae.runs.config import ConfigError
from litevae.runs.recipes import load_config
from litevae.seeds import derive_rng
from litevae.training.config import RunConfig
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import check_folder, write_text

ROWS: dict[str, list[str]] = {
    "LiteVAE-B": [],
    "LiteVAE-B, NAFNet": ["model=nafnet"],
    "LiteVAE-B, shared": ["model=shared"],
    "LiteVAE-B, ViT": ["model=vit"],
    "LiteVAE-B, last two levels": ["model=last-two-levels"],
    "LiteVAE-B, SMC decoder": ["model=smc"],
    "LiteVAE-B, SMC encoder and decoder": ["model=smc-encoder"],
}
CROP, PER_SOURCE = 64, 100  # FWD of 64 x 64 pixels has Gaussians over 48 numbers
COMMON = [
    "train.device=cpu",
    "train.evaluate_every=1000000",
    "train.evaluate_lpips=false",
    f"data.evaluation_size={CROP}",
]
TRIAL = ["train.steps=20", "train.log_every=2", "train.warmup_steps=2", "train.checkpoint_every=1000000"]

COLUMNS = [
    Column("row", "autoencoder"),
    Column("encoder_m", "encoder, M", ".2f"),
    Column("images_per_second", "training, img/s", ".3g"),
    Column("encode_per_second", "encode, img/s", ".3g"),
    Column("steps", "steps", "d"),
    Column("psnr", "PSNR, dB"),
    Column("psnr_spread", "+-"),
    Column("ssim", "SSIM", ".3f"),
    Column("ssim_spread", "+-", ".3f"),
    Column("fwd", "FWD", ".3g"),
    Column("fwd_spread", "+-", ".2g"),
]


def train(arguments: Sequence[str], folder: Path) -> None:
    """One run with one thread, in a process of its own; what it says goes to <folder>.log.

    Raises:
        RuntimeError: the run failed.
    """
    command = [sys.executable, "-m", "litevae.train", *arguments]
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, env=one_thread, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        last = log.read_text(encoding="utf-8").splitlines()[-1:]
        raise RuntimeError(f"{shlex.join(command)} failed, see {log}: {''.join(last)}")


def speed(overrides: Sequence[str], folder: Path) -> dict[str, float]:
    """Images per second of training crops and of encoding 256 x 256 pixels, on one core; measured once and kept.

    Of training the fastest of some log lines, of encoding the fastest call: all else that the machine does only slows.
    """
    kept = folder / "speed.json"
    if not kept.exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"== speed of {folder.parent.name}", flush=True)
        train(["comparison", *overrides, *TRIAL, f"run.dir={folder}"], folder)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        training = max(line["images_per_second"] for line in lines if line["kind"] == "train")
        measured = {"images_per_second": training, "encode_per_second": encode_speed(folder)}
        write_text(kept, json.dumps({**measured, **parameters(folder)}) + "\n")
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def encode_speed(folder: Path) -> float:
    """Images per second of `encode` in float32, a batch of one image, by the time that its one thread computes."""
    model: Any = load_model(folder).eval()
    image, times = torch.rand(1, 3, 256, 256) * 2 - 1, []
    with torch.inference_mode():
        for _ in range(10):
            start = time.thread_time()
            model.encode(image)
            times.append(time.thread_time() - start)
    return 1 / min(times)


def run(overrides: Sequence[str], steps: int, folder: Path) -> None:
    """Train for so many steps: from the last checkpoint if there is one, not at all if they are done."""
    if newest_step(folder) < 0:
        shutil.rmtree(folder, ignore_errors=True)
        train(["comparison", *overrides, f"train.steps={steps}", f"run.dir={folder}"], folder)
    elif newest_step(folder) < steps:
        train(["--resume", str(folder)], folder)


def run_side_by_side(jobs: Sequence[tuple[str, list[str], int, Path]]) -> None:
    """Every run and its evaluation, as many at once as there are cores, each on one. After a failure none begins."""
    cores: SimpleQueue[int] = SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def pin() -> None:
        os.sched_setaffinity(0, {cores.get()})  # of this thread, and of the processes that it starts
        torch.set_num_threads(1)

    def one(job: tuple[str, list[str], int, Path]) -> None:
        label, overrides, steps, folder = job
        print(f"== {label}: {steps} steps in {folder}", flush=True)
        run(overrides, steps, folder)
        print(f"== {label}: {quality(folder)}", flush=True)

    with ThreadPoolExecutor(cores.qsize(), initializer=pin) as pool:
        futures = [pool.submit(one, job) for job in jobs]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def held_out() -> Iterator[HeldOutImage]:
    """The same images for every model: crops of the two held-out photographs at random scales, and dead leaves."""
    config = DataConfig(source="photographs", crop_size=CROP, max_downscale=2.0, evaluation_images=PER_SOURCE)
    photographs = [read_image(path) for path in built_in_paths(BUILT_IN_HELD_OUT)]
    for index in range(PER_SOURCE):
        crop = random_crop(photographs[index % 2], config, derive_rng(0, "crops of held-out photographs", index))
        yield HeldOutImage(f"crop {index}", to_tensor(crop))
    yield from hold_out_dead_leaves(replace(config, evaluation_size=CROP))


def quality(folder: Path) -> dict[str, float]:
    """PSNR, SSIM and FWD of a run's model on the images of `held_out`; measured once and kept."""
    kept = folder / "quality.json"
    if not kept.exists():
        cpu = torch.device("cpu")
        sets = Instruments(("fwd",), BicubicBaseline(cpu), WeightSource()).at(CROP)
        evaluation = evaluate(load_model(folder), held_out(), cpu, batch_size=8, sets=sets)
        write_text(kept, json.dumps({**evaluation.means, "fwd": evaluation.distances["fwd"]}) + "\n")
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def row_of(label: str, speeds: dict[str, float], steps: int, qualities: Sequence[dict[str, float]]) -> dict[str, Any]:
    """A row of the table: the mean over the seeds, and half of the distance between the best and the worst of them."""
    row: dict[str, Any] = {"row": label, **speeds, "steps": steps}
    for metric in ("psnr", "ssim", "fwd"):
        values = [one[metric] for one in qualities]
        row |= {metric: mean(values), f"{metric}_spread": (max(values) - min(values)) / 2, f"{metric}_seeds": values}
    return row


def table(settings: dict[str, Any], minutes: float, seeds: Sequence[int]) -> Table:
    return Table(
        name="comparison_encoders",
        title="The encoders of the paper's appendices in LiteVAE-B, trained for the same time",
        settings={
            **settings,
            "steps": f"as many as fit into {minutes:g} minutes at the speed of training",
            "seeds": ", ".join(map(str, seeds)),
        },
        columns=COLUMNS,
        order=list(ROWS),
        notes=[
            f"{2 * PER_SOURCE} held-out images of {CROP}x{CROP}: crops of two photographs (chelsea, coffee) and dead "
            "leaves, the same for all. Each number is the mean over the seeds, +- half of the distance between the "
            "best and the worst.",
            "Speeds on one core, alone, before the runs, the fastest of 10 tries. Encode: float32, one image of "
            "256x256, not prepared with optimize_for_inference. The runs went side by side, one to a core.",
            "SMC in the encoder goes with SMC in the decoder, so its neighbour is the row above it.",
            "The DWT alone has 12 or 48 latent channels, f4 and f16 have another latent: they are no rivals here.",
        ],
    )


def check_overrides(kept: Path, overrides: Sequence[str]) -> None:
    """Raise a ValueError if what is there was run with others: speeds and runs would be taken for these."""
    if not kept.exists():
        write_text(kept, json.dumps(list(overrides)) + "\n")
    elif (before := json.loads(kept.read_text(encoding="utf-8"))) != list(overrides):
        raise wrong_value("--runs", f"hold runs with these overrides, {list(overrides)}", before, "name another folder")


def main(argv: Sequence[str] | None = None) -> int:
    """Train every row with every seed; write the table and the figure to the results. Returns 2 for a wrong option."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison_encoders", description=__doc__.splitlines()[0]
    )
    parser.add_argument("overrides", nargs="*", help="section.key=value for every row, e.g. train.batch_size=4")
    parser.add_argument("--minutes", type=positive, default=6.0, help="what every run may take, alone on a core (6)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="a run of every row with each (0 1)")
    parser.add_argument("--runs", type=Path, required=True, help="the runs go here; what it has is not done again")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table and the figure go")
    parser.add_argument("--only", choices=ROWS, nargs="+", default=list(ROWS), help="train these rows alone")
    arguments = parser.parse_args(argv)
    overrides = {label: [*ROWS[label], *COMMON, *arguments.overrides] for label in arguments.only}
    try:
        for option in ("results", "runs"):
            check_folder(f"--{option}", getattr(arguments, option))
        for own in overrides.values():
            load_config(RunConfig, "comparison", own)
        common = load_config(RunConfig, "comparison", [*COMMON, *arguments.overrides])
        check_overrides(arguments.runs / "overrides.json", arguments.overrides)
    except (ValueError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    seeds: Sequence[int] = arguments.seeds
    command = [
        *arguments.overrides,
        "--minutes",
        f"{arguments.minutes:g}",
        "--seeds",
        *map(str, seeds),
        "--runs",
        "FOLDER",
    ]
    conditions = report.conditions(shlex.join(["python", "-m", "benchmarks.comparison_encoders", *command]))
    measured = Measured(table(settings_of(common), arguments.minutes, seeds))
    folders = {label: arguments.runs / label.replace(", ", "-").replace(" ", "-").lower() for label in overrides}
    speeds = {label: speed(own, folders[label] / "speed") for label, own in overrides.items()}
    images = 60 * arguments.minutes / common.train.batch_size
    steps = {label: max(1, round(images * speeds[label]["images_per_second"])) for label in overrides}

    def run_folder(label: str, seed: int) -> Path:
        return folders[label] / f"seed-{seed}-steps-{steps[label]}"

    run_side_by_side(
        [
            (f"{label}, seed {seed}", [*own, f"train.seed={seed}"], steps[label], run_folder(label, seed))
            for seed in seeds
            for label, own in overrides.items()
        ]
    )
    for label in overrides:
        qualities = [quality(run_folder(label, seed)) for seed in seeds]
        measured.rows[label] = row_of(label, speeds[label], steps[label], qualities)
    document = report.document(measured, conditions)
    print(report.markdown(document))
    print(report.write(document, arguments.results))
    figures.write(arguments.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
