"""How is a LiteVAE trained? `python -m litevae.train quickstart`; read `Trainer.fit` first, the loop.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

import contextlib
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from litevae.data import DataError, evaluation_view, open_data
from litevae.evaluation.held_out import Evaluation, HeldOutImage, bicubic_baseline, evaluate
from litevae.losses.perceptual import PerceptualConfig, build_perceptual
from litevae.losses.vgg import TrunkError
from litevae.runs.board import Board
from litevae.runs.checkpoint import Best, Checkpoint, CheckpointError, load_newest_checkpoint, save_checkpoint
from litevae.runs.command_line import parse, plain_warnings
from litevae.runs.finite import NonFiniteError, check_parameters, check_progress
from litevae.runs.processes import Processes
from litevae.runs.progress import Progress
from litevae.runs.recipes import load_config
from litevae.runs.report import closing, opening, write_grid, write_results
from litevae.runs.run_folder import RunFolder
from litevae.runs.stopping import StopRequest
from litevae.training.config import ConfigError, RunConfig
from litevae.training.dry_run import dry_run
from litevae.training.networks import Networks
from litevae.training.snapshot import restore, snapshot, start_from
from litevae.training.update import Update
from litevae_kernels.files import remove_leftovers


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: done; 1: a failed run; 2: a wrong request; 129, 130, 143: saved and stopped by SIGHUP, Ctrl-C, SIGTERM.
    """
    arguments = parse(argv)
    command = sys.argv if argv is None else ["litevae.train", *argv]
    try:
        with plain_warnings():
            if arguments.resume is not None:
                return resume(arguments.resume, arguments.overrides, command)
            config = load_config(arguments.recipe, arguments.overrides)
            return dry_run(config) if arguments.dry_run else start(config, command)
    except (ConfigError, DataError, CheckpointError, TrunkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (NonFiniteError, OSError) as error:
        print(f"error: {error}; a run goes on from its newest checkpoint with --resume", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def start(config: RunConfig, command: Sequence[str]) -> int:
    """A new run."""
    processes = Processes(config.train.device)
    folder = RunFolder(Path(config.run.dir or "").expanduser())
    if processes.is_main:
        folder.check_free(config)
    trainer = Trainer(config, folder, processes)
    if config.train.start_from is not None:
        trainer.say(f"weights   {start_from(trainer.networks, Path(config.train.start_from))}")
    if processes.is_main:
        folder.create(config, command)
    trainer.save()
    return trainer.fit()


def resume(run: Path, overrides: Sequence[str], command: Sequence[str]) -> int:
    """Go on with a run from its newest whole checkpoint, to `train.steps`."""
    folder = RunFolder(run.expanduser())
    config = folder.read_config(overrides)
    checkpoint = load_newest_checkpoint(folder.checkpoints)
    step, steps = checkpoint["step"], config.train.steps
    if step > steps or (step == steps and folder.model.exists()):
        raise ConfigError(f"{run} has already run {step} steps; to go on, give more: train.steps={2 * step}")
    processes = Processes(config.train.device)
    trainer = Trainer(config, folder, processes)
    trainer.restore(checkpoint)
    if processes.is_main:
        for place in (folder.path, folder.checkpoints, folder.grids):
            remove_leftovers(place)
        folder.write_config(config)
        folder.forget_after(step)
        folder.append_metrics({"step": step, "kind": "resume", "command": list(command)})
    processes.wait()
    return trainer.fit()


class Trainer:
    """A run in memory: data, networks, and how far it has come."""

    def __init__(self, config: RunConfig, folder: RunFolder, processes: Processes) -> None:
        self.config, self.folder, self.processes = config, folder, processes
        self.data = open_data(config.data, config.train.seed)
        size = config.data.evaluation_size
        self.held_out = [HeldOutImage(photo.name, evaluation_view(photo.image, size)) for photo in self.data.held_out]
        self.networks = Networks(config, processes)
        self.update = Update(config, self.networks, processes)
        self.lpips = self._lpips() if config.evaluates_lpips and processes.is_main else None
        self.step = 0
        self.progress = Progress(config.train.batch_size, processes.average)
        self.data_state: list[Any] = []
        self.batches: Any = None
        self.latest: tuple[Evaluation, Evaluation | None] | None = None
        self.best: Best | None = None
        self.saved_step = self.evaluated_step = -1
        self.board: Board | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint."""
        restore(self.networks, checkpoint, str(self.folder.checkpoints))
        self.step = self.saved_step = checkpoint["step"]
        self.best = checkpoint["best"]
        self.progress.restore(checkpoint["progress"])
        self.data_state = checkpoint["data"]

    def fit(self) -> int:
        """Train to `train.steps`; returns the exit code."""
        train = self.config.train
        self.open()
        with StopRequest() as stop, self.progress.open_bar(self.step, train.steps, shown=self.processes.is_main):
            for batch in self.batches:
                # batch
                pixels = batch.to(self.processes.device, non_blocking=True)

                # generator step, discriminator step
                self.progress.add(self.update(pixels, self.step))
                self.step += 1
                stopping = self.processes.any(stop.requested)

                # log
                if self.due(train.log_every):
                    self.log()

                # evaluate
                if self.due(train.evaluate_every):
                    self.evaluate()

                # save
                if self.due(train.checkpoint_every) or stopping:
                    self.save()
                if stopping:
                    break
        if self.step < train.steps:
            self.say(f"stopped at step {self.step}; go on with: {resume_command(self.folder.path)}")
            return stop.exit_code
        self.finish()
        return 0

    def open(self) -> None:
        """Say what is about to happen, measure the start, open the stream of batches."""
        train, processes = self.config.train, self.processes
        if processes.is_main:
            self.board = Board(self.folder.tensorboard, self.step) if train.tensorboard else None
            self.baseline = bicubic_baseline(self.held_out, processes.device, self.lpips)
            self.say(
                opening(
                    self.config,
                    self.networks,
                    processes,
                    images=self.data.description,
                    held_out=[item.name for item in self.held_out],
                    step=self.step,
                    baseline=self.baseline,
                )
            )
        if processes.any(processes.is_main and not self.folder.evaluations()):  # one looks: the same for all
            self.evaluate()
        self.batches = self.data.batches(
            first_step=self.step,
            last_step=train.steps,
            batch_size=train.batch_size,
            rank=processes.rank,
            world_size=processes.world_size,
            pin_memory=processes.device.type == "cuda",
            state=self.data_state or None,
        )

    def due(self, every: int) -> bool:
        """Whether this step ends an interval, or the run."""
        return self.step % every == 0 or self.step == self.config.train.steps

    def read_progress(self) -> None:
        """Bring the losses to the host, warn of skipped steps, end a run that only skips. The loop waits here alone."""
        for text in self.progress.read(self.step):
            if self.processes.is_main:
                warnings.warn(text, stacklevel=2)
        check_progress(self.progress, self.config.train.max_skipped_steps, self.advice)

    def log(self) -> None:
        """One line of metrics.jsonl and TensorBoard."""
        self.read_progress()
        train = self.config.train
        rate = train.learning_rate * train.schedule_of(self.step - 1)
        line = self.progress.line(self.step, rate, last_of_window=self.step % train.log_every == 0)
        self.record({**line, "skipped_images": sum(self.batches.skipped().values())})

    def evaluate(self) -> None:
        """Measure the held-out images: of the averaged weights, if there are any, and of the weights as they are."""
        self.read_progress()
        self.evaluated_step = self.step
        is_best = False
        if self.processes.is_main:
            networks, about = self.networks, (self.held_out, self.processes.device, self.lpips)
            raw = None if networks.ema is None else evaluate(networks.model, *about)
            evaluation = evaluate(networks.kept, *about)
            self.latest = evaluation, raw
            self.record(evaluation.as_metrics(self.step, raw))
            write_grid(self.folder.grids / f"step-{self.step:06d}.png", evaluation, raw, self.step)
            if self.board is not None:
                self.board.add_images(evaluation, self.step)
            self.progress.show_psnr(evaluation.psnr)
            is_best = self.best is None or evaluation.psnr > self.best["psnr"]
            self.best = Best(step=self.step, psnr=evaluation.psnr) if is_best else self.best
        if self.processes.any(is_best):
            self.save()
        self.progress.restart_clock()

    def save(self) -> None:
        """Write a checkpoint, but never one of a model that is already lost."""
        self.read_progress()
        if self.saved_step == self.step:
            return
        for learner in self.networks.learners:
            check_parameters(learner.network, self.step, self.advice)
        positions = self.processes.gather({} if self.batches is None else self.batches.state_dict())
        if self.processes.is_main:
            content = {
                "step": self.step,
                "data": positions,
                "progress": self.progress.state,
                "best": self.best,
                **snapshot(self.networks),
            }
            save_checkpoint(self.folder.checkpoints, content, self.config.train.keep_checkpoints)
        self.saved_step = self.step
        self.processes.wait()
        self.progress.restart_clock()

    def finish(self) -> None:
        """Write the model and the figures, and print the quality before and after."""
        if self.evaluated_step != self.step:
            self.evaluate()
        if self.latest is not None:  # in the process that measures
            evaluation, raw = self.latest
            write_results(self.folder, self.networks.kept, evaluation, raw, self.baseline, self.step)
            self.say(closing(self.folder, evaluation, self.baseline))
        if self.board is not None:
            self.board.close()
        self.processes.end()

    def record(self, line: dict[str, Any]) -> None:
        """One more line for metrics.jsonl and TensorBoard."""
        if self.processes.is_main:
            self.folder.append_metrics(line)
            if self.board is not None:
                self.board.add_line(line)

    def say(self, text: str) -> None:
        """Print, in one process."""
        if self.processes.is_main:
            with contextlib.suppress(OSError):  # whoever read this may be gone, the terminal too
                print(text, flush=True)

    @property
    def advice(self) -> str:
        """How to go on after the networks were lost."""
        rate = self.config.train.learning_rate / 2
        return (
            f"go on from it with a lower learning rate: {resume_command(self.folder.path)} train.learning_rate={rate:g}"
        )

    def _lpips(self) -> torch.nn.Module:
        """The LPIPS that held-out images are measured with: the loss's, if it is one."""
        perceptual = self.networks.loss.perceptual
        if perceptual is not None and self.config.perceptual.kind == "lpips":
            return perceptual
        trunk = PerceptualConfig(kind="lpips", trunk=self.config.perceptual.trunk)
        return build_perceptual(trunk).to(self.processes.device)


def resume_command(run: Path) -> str:
    """What to type to go on with a run."""
    return f"python -m litevae.train --resume {shlex.quote(str(run))}"


if __name__ == "__main__":
    sys.exit(main())
