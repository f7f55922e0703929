"""Kill a run with SIGKILL many times, in the middle of saves too, and resume it each time. Not a test by itself.

    python kill_repeatedly.py RECIPE.yaml FOLDER KILLS SEED

A program of its own, so that what it forks has the imports done and nothing else: an attempt takes a fraction of a
second. Prints one JSON object: the newest step that could be loaded after each kill, and how many kills hit a save.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import accelerate  # noqa: F401  (imported where it is used, and then once for all attempts)
import matplotlib.figure  # noqa: F401
import torch
import torch.utils.tensorboard

from litevae import train
from litevae.runs.checkpoint import CheckpointError, load_newest_checkpoint


def attempt(argv: list[str]) -> int:
    """A child that trains and saves slowly; returns its process."""
    child = os.fork()
    if child:
        return child
    save = torch.save

    def slow_save(content: object, path: Path) -> None:
        save(content, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        time.sleep(0.02)
        path.write_bytes(whole)

    torch.save = slow_save  # type: ignore[assignment]
    os.close(1)
    os.close(2)
    os.open(os.devnull, os.O_WRONLY)
    os.dup(1)
    code = 70
    try:
        code = train.main(argv)
    finally:
        os._exit(code)


def wait_for_saves(checkpoints: Path, count: int, seconds: float) -> bool:
    """Whether so many checkpoints were seen being written; returns in the middle of the last one."""
    seen: set[str] = {path.name for path in checkpoints.glob(".*.part*")}  # what earlier kills left
    wanted, end = len(seen) + count, time.monotonic() + seconds
    while time.monotonic() < end:
        seen |= {path.name for path in checkpoints.glob(".*.part*")}
        if len(seen) >= wanted:
            return True
        time.sleep(0.001)
    return False


def main(recipe: str, folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    random.seed(seed)
    checkpoints = folder / "checkpoints"
    steps, in_saves = [], 0
    for number in range(kills):
        fresh = not checkpoints.is_dir() or not any(checkpoints.glob("step-*.pt"))
        argv = [recipe, f"run.dir={folder}"] if fresh else ["--resume", str(folder)]
        child = attempt(argv)
        if number % 2:
            in_saves += wait_for_saves(checkpoints, random.randint(1, 4), 10.0)
        else:
            time.sleep(random.uniform(0.1, 1.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a damaged checkpoint is warned about
            try:
                steps.append(load_newest_checkpoint(checkpoints)["step"])
            except CheckpointError:
                if any(checkpoints.glob("step-*.pt")):
                    raise
                steps.append(-1)  # killed before the first one
    print(json.dumps({"steps": steps, "in_saves": in_saves}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
