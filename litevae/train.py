"""How is a LiteVAE trained? `python -m litevae.train quickstart`; read `Trainer.fit` first, the loop.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from litevae.data.crops import CropStream, crop_batches, derive_seed, evaluation_view
from litevae.data.sources import DataError, open_sources
from litevae.losses.total import AutoencoderLoss
from litevae.models.litevae import LiteVAE
from litevae.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_newest_checkpoint,
    load_state,
    save_checkpoint,
)
from litevae.training.command_line import parse, plain_warnings
from litevae.training.config import ConfigError, RunConfig
from litevae.training.evaluate import Evaluation, HeldOutImage, bicubic_baseline, evaluate
from litevae.training.finite import NonFiniteError, check_finite
from litevae.training.initialize import initialize
from litevae.training.interrupt import StopRequest
from litevae.training.progress import Progress
from litevae.training.recipes import load_config
from litevae.training.report import closing, opening, write_results
from litevae.training.run_folder import RunFolder


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for a failed run, 2 for a wrong request, 130 after Ctrl-C."""
    arguments = parse(argv)
    command = sys.argv if argv is None else ["litevae.train", *argv]
    try:
        with plain_warnings():
            if arguments.resume is not None:
                return resume(arguments.resume, arguments.overrides, command)
            config = load_config(arguments.recipe, arguments.overrides)
            folder = RunFolder(Path(config.run.dir or "").expanduser())
            folder.check_free()
            trainer = Trainer(config, folder)
            folder.create(config, command)
            trainer.save()
            return trainer.fit()
    except (ConfigError, DataError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (NonFiniteError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def resume(run: Path, overrides: Sequence[str], command: Sequence[str]) -> int:
    """Go on with a run from its newest whole checkpoint, to `train.steps`."""
    folder = RunFolder(run.expanduser())
    config = folder.read_config(overrides)
    checkpoint = load_newest_checkpoint(folder.checkpoints)
    step, steps = checkpoint["step"], config.train.steps
    if step > steps or (step == steps and folder.model.exists()):
        raise ConfigError(f"{run} has already run {step} steps; to go on, give more: train.steps={2 * step}")
    trainer = Trainer(config, folder)
    trainer.restore(checkpoint)
    folder.write_config(config)
    folder.append_metrics({"step": step, "kind": "resume", "command": list(command)})
    return trainer.fit()


class Trainer:
    """A run in memory: data, model, loss, optimizer, and how far it has come.

    Everything random about step s (crops, posterior noise, dropout) is a function of (seed, s). So a checkpoint
    needs no sampler or generator state, and on a CPU a resumed run equals an unbroken one bit for bit.
    """

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        train = config.train
        self.config, self.folder = config, folder
        self.device = train.torch_device()
        source, photos = open_sources(config.data)
        self.crops = CropStream(source, config.data, train.seed)
        size = config.data.evaluation_size
        self.held_out = [HeldOutImage(photo.name, evaluation_view(photo.image, size)) for photo in photos]
        torch.manual_seed(derive_seed(train.seed, "weights", 0))
        model = LiteVAE.from_preset(config.model.size, **config.model.overrides)
        initialize(model, train.initialization)
        self.model: LiteVAE = model.to(self.device).train()
        self.loss = AutoencoderLoss(config.loss).to(self.device)
        betas = (train.betas[0], train.betas[1])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=train.learning_rate, betas=betas)
        self.step = 0
        self.progress = Progress(train.batch_size)
        self.latest: Evaluation | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint; what the log holds of later steps is dropped, they will be run again."""
        load_state(self.model, checkpoint["model"], str(self.folder.checkpoints))
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.step = checkpoint["step"]
        self.progress.restore(checkpoint["logged"], checkpoint["logged_steps"], self.device)
        self.folder.forget_after(self.step)

    def fit(self) -> int:
        """Train to `train.steps`; returns the exit code."""
        train = self.config.train
        baseline = bicubic_baseline(self.held_out)
        print(
            opening(
                self.config,
                self.model,
                photos=len(self.crops.source),
                held_out=self.held_out,
                step=self.step,
                baseline=baseline,
            ),
            flush=True,
        )
        if not self.folder.evaluations():
            self.evaluate()
        with StopRequest() as stop, self.progress.open_bar(self.step, train.steps):
            for batch in self.batches():
                # batch
                image = batch.to(self.device, non_blocking=True)

                # generator step
                terms = self.generator_step(image)
                self.step += 1
                self.progress.add(terms)

                # log
                if self.due(train.log_every):
                    self.log()

                # evaluate
                if self.due(train.evaluate_every):
                    self.progress.show_psnr(self.evaluate().psnr)

                # save
                if self.due(train.checkpoint_every) or stop.requested:
                    self.save()
                if stop.requested:
                    break
        if self.step < train.steps:
            print(f"stopped at step {self.step}; go on with: {resume_command(self.folder.path)}")
            return 130
        self.finish(baseline)
        return 0

    def batches(self) -> torch.utils.data.DataLoader[Tensor]:
        """The batches of the steps that are left."""
        train = self.config.train
        return crop_batches(
            self.crops,
            first_step=self.step,
            last_step=train.steps,
            batch_size=train.batch_size,
            workers=self.config.data.worker_count,
            pin_memory=self.device.type == "cuda",
        )

    def generator_step(self, image: Tensor) -> dict[str, Tensor]:
        """One forward, one backward, one update of encoder and decoder; returns the loss terms, detached."""
        train = self.config.train
        torch.manual_seed(derive_seed(train.seed, "noise", self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = train.learning_rate_of(self.step)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=train.mixed_precision == "bf16"):
            output = self.model(image, sample_posterior=True)
        total, terms = self.loss(image, output.sample, output.wavelet, output.latent_dist)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return terms

    def due(self, every: int) -> bool:
        """Whether this step ends an interval, or the run."""
        return self.step % every == 0 or self.step == self.config.train.steps

    def log(self) -> None:
        """One line of metrics.jsonl; the only place of the loop that waits for the device."""
        self.check_finite()
        train = self.config.train
        rate = train.learning_rate_of(self.step - 1)
        full = self.step % train.log_every == 0
        self.folder.append_metrics(self.progress.line(self.step, rate, last_of_window=full))

    def evaluate(self) -> Evaluation:
        """Measure the held-out images and log it."""
        self.check_finite()
        self.latest = evaluate(self.model, self.held_out, self.device)
        self.folder.append_metrics(self.latest.as_metrics(self.step))
        self.progress.restart_clock()
        return self.latest

    def save(self) -> None:
        """Write a checkpoint, but never one of a model that is already lost."""
        self.check_finite()
        logged, logged_steps = self.progress.state
        save_checkpoint(
            self.folder.checkpoints,
            step=self.step,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            logged=logged,
            logged_steps=logged_steps,
            keep=self.config.train.keep_checkpoints,
        )
        self.progress.restart_clock()

    def check_finite(self) -> None:
        """Raise NonFiniteError if the losses or the model are lost."""
        rate = self.config.train.learning_rate / 2
        advice = f"go on from it with a lower learning rate: {resume_command(self.folder.path)}"
        check_finite(self.progress, self.model, self.step, f"{advice} train.learning_rate={rate:g}")

    def finish(self, baseline: Evaluation) -> None:
        """Write the model and the figures, and print the quality before and after."""
        evaluation = self.latest or evaluate(self.model, self.held_out, self.device)
        write_results(self.folder, self.model, evaluation, baseline, self.step)
        print(closing(self.folder, evaluation, baseline))


def resume_command(run: Path) -> str:
    """What to type to go on with a run."""
    return f"python -m litevae.train --resume {shlex.quote(str(run))}"


if __name__ == "__main__":
    sys.exit(main())
