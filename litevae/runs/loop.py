"""The loop of a run of anything: train, log, evaluate, save; stopped at any step, it goes on with the same bits.

Read `Loop.fit` first. A kind of training is a subclass with its own networks, update and evaluation (`Trainer`).
"""

import contextlib
import shlex
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from litevae.runs.checkpoint import Checkpoint, load_newest_checkpoint, save_checkpoint
from litevae.runs.config import Config, ConfigError
from litevae.runs.learner import Learner
from litevae.runs.processes import Processes
from litevae.runs.progress import BrokenRunError, Progress, check_parameters
from litevae.runs.run_folder import RunFolder
from litevae.runs.stopping import StopRequest
from litevae.runs.tensorboard import TensorBoard
from litevae_kernels.files import remove_leftovers


class Loop(ABC):
    """A run in memory: how far it has come, its log and its checkpoints."""

    schema: type[Config]
    """The dataclass of the config's sections."""
    folder_type: type[RunFolder] = RunFolder
    learner_names: Mapping[str, str]
    """The name of each learner in the terms of an update, and what warnings call it."""
    score: str
    """The number of an evaluation's line that says which checkpoint is the best: the highest, unless..."""
    lower_is_better = False
    snapshot_keys: Collection[str]
    """The keys of `snapshot`; a checkpoint without one of them is passed over as damaged."""
    breaks_run: tuple[type[Exception], ...] = ()
    """Errors that end a run which has begun as a BrokenRunError; before it they are a wrong request."""

    learners: list[Learner]
    update: Any
    """(batch on the device, finished steps) -> terms by name, on the device; see `Progress`."""

    def __init__(self, config: Config, folder: RunFolder, processes: Processes) -> None:
        self.config, self.folder, self.processes = config, folder, processes
        self.step = 0
        self.progress = Progress(config.train.batch_size, self.learner_names, processes.average)
        self.batches: Any = None
        self.positions: list[Any] = []
        self.best: dict[str, Any] | None = None
        self.saved_step = self.evaluated_step = -1
        self.tensorboard: TensorBoard | None = None

    @abstractmethod
    def introduce(self) -> None:
        """Print what is about to be trained; in the main process."""

    @abstractmethod
    def open_batches(self) -> Any:
        """The batches from `self.step` on, with `state_dict()` and `skipped()` (litevae/data/batches.py)."""

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Evaluate, in the main process; returns the line of metrics.jsonl. With "changed" never the best."""

    @abstractmethod
    def write_results(self) -> None:
        """Write the model and the figures at the end, print the quality; in the main process."""

    @abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint holds of the networks and their optimizers."""

    @abstractmethod
    def load(self, checkpoint: Checkpoint) -> None:
        """Load what `snapshot` returned."""

    @abstractmethod
    def start_from(self, path: Path) -> str:
        """Load the weights of another run or a saved model; returns what was loaded, in words."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.load(checkpoint)
        self.step = self.saved_step = checkpoint["step"]
        self.best = checkpoint["best"]
        self.progress.restore(checkpoint["progress"])
        self.positions = checkpoint["data"]

    def fit(self) -> int:
        """Train to `train.steps`; returns the exit code."""
        try:
            return self._fit()
        except self.breaks_run as error:
            raise BrokenRunError(str(error)) from error

    def _fit(self) -> int:
        train = self.config.train
        self.open()
        with StopRequest() as stop, self.progress.open_bar(self.step, train.steps, shown=self.processes.is_main):
            for batch in self.batches:
                # update
                samples = batch.to(self.processes.device, non_blocking=True)
                self.progress.add(self.update(samples, self.step))
                self.step += 1
                stopping = self.processes.any(stop.requested)

                # read back: the loop waits for the device here alone
                logs, evaluates = self.due(train.log_every), self.due(train.evaluate_every)
                saves = self.due(train.checkpoint_every) or stopping
                if logs or evaluates or saves:
                    self.read_progress()

                # log, evaluate, save
                if logs:
                    self.log()
                if evaluates:
                    self.evaluate()
                if saves:
                    self.save()
                if stopping:
                    break
        if self.step < train.steps:
            self.say(f"stopped at step {self.step}; go on with: {self.resume_command}")
            return stop.exit_code
        self.finish()
        return 0

    def open(self) -> None:
        """Say what is about to happen, evaluate the start, open the stream of batches."""
        processes = self.processes
        if processes.is_main:
            if self.config.train.tensorboard:
                self.tensorboard = TensorBoard(self.folder.tensorboard, self.step)
            self.introduce()
        if processes.any(processes.is_main and not self.folder.evaluations()):  # only one process reads the file
            self.evaluate()
        self.batches = self.open_batches()

    def due(self, every: int) -> bool:
        """Whether this step ends an interval, or the run."""
        return self.step % every == 0 or self.step == self.config.train.steps

    def read_progress(self) -> None:
        """Bring the losses to the host, warn of skipped steps, end a run that only skips."""
        for text in self.progress.read(self.step):
            if self.processes.is_main:
                warnings.warn(text, stacklevel=2)
        self.progress.check(self.config.train.max_skipped_steps, self.advice)

    def log(self) -> None:
        """One line of metrics.jsonl and TensorBoard."""
        train = self.config.train
        rate = train.learning_rate * train.schedule_of(self.step - 1)
        line = self.progress.line(self.step, rate, last_of_window=self.step % train.log_every == 0)
        self.record({**line, "skipped_images": sum(self.batches.skipped().values())})

    def evaluate(self) -> None:
        """Measure, and save what is the best so far; where measuring fails, save what was trained before it raises."""
        self.evaluated_step = self.step
        is_best, failure = False, None
        if self.processes.is_main:
            try:
                line = self.measure()
                self.record(line)
                is_best = "changed" not in line and (self.best is None or self.is_better(line, self.best))
                self.best = {"step": self.step, self.score: line[self.score]} if is_best else self.best
            except Exception as error:
                failure = error
        if self.processes.any(is_best or failure is not None):
            self.save()
        if failure is not None:
            raise failure
        self.progress.restart_clock()

    def is_better(self, line: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
        """Whether an evaluation beats the best one before it."""
        difference: float = line[self.score] - best[self.score]
        return difference < 0 if self.lower_is_better else difference > 0

    def save(self) -> None:
        """Write a checkpoint, but never one with a parameter that is not finite."""
        if self.saved_step == self.step:
            return
        for learner in self.learners:
            check_parameters(learner.network, self.step, self.advice)
        positions = self.processes.gather({} if self.batches is None else self.batches.state_dict())
        if self.processes.is_main:
            content = {"step": self.step, "data": positions, "progress": self.progress.state, "best": self.best}
            content |= self.snapshot()
            save_checkpoint(self.folder.checkpoints, content, self.config.train.keep_checkpoints)
        self.saved_step = self.step
        self.processes.wait()
        self.progress.restart_clock()

    def finish(self) -> None:
        """Write the results and leave the process group."""
        if self.evaluated_step != self.step:
            self.evaluate()
        if self.processes.is_main:
            self.write_results()
            self.record({"step": self.step, "kind": "end"})
        if self.tensorboard is not None:
            self.tensorboard.close()
        self.processes.end()

    def record(self, line: dict[str, Any]) -> None:
        """One more line for metrics.jsonl and TensorBoard."""
        if self.processes.is_main:
            self.folder.append_metrics(line)
            if self.tensorboard is not None:
                self.tensorboard.add_line(line)

    def say(self, text: str) -> None:
        """Print, in one process."""
        if self.processes.is_main:
            with contextlib.suppress(OSError):  # a closed pipe or terminal ends no run
                print(text, flush=True)

    @property
    def resume_command(self) -> str:
        """What to type to go on with this run."""
        return f"python -m litevae.train --resume {shlex.quote(str(self.folder.path))}"

    @property
    def advice(self) -> str:
        """How to go on after the networks were lost."""
        rate = self.config.train.learning_rate / 2
        return f"go on from it with a lower learning rate: {self.resume_command} train.learning_rate={rate:g}"


def start(kind: type[Loop], config: Config, command: Sequence[str]) -> int:
    """A new run; returns the exit code."""
    processes = Processes(config.train.device)
    folder = kind.folder_type(Path(config.run.dir or "").expanduser())
    if processes.is_main:
        folder.check_free(config)
    loop = kind(config, folder, processes)
    if config.train.start_from is not None:
        loop.say(f"weights   {loop.start_from(Path(config.train.start_from))}")
    if processes.is_main:
        folder.create(config, command)
    loop.save()
    return loop.fit()


def resume(kind: type[Loop], run: Path, overrides: Sequence[str], command: Sequence[str]) -> int:
    """Go on with a run from its newest whole checkpoint, to `train.steps`; returns the exit code."""
    folder = kind.folder_type(run.expanduser())
    config = folder.read_config(kind.schema, overrides)
    folder.check_writable("--resume")
    checkpoint = load_newest_checkpoint(folder.checkpoints, kind.snapshot_keys)
    step, steps = checkpoint["step"], config.train.steps
    if step > steps or (step == steps and folder.has_results_of(step)):
        raise ConfigError(f"{run} has already run {step} steps; to go on, give more: train.steps={2 * step}")
    processes = Processes(config.train.device)
    loop = kind(config, folder, processes)
    loop.restore(checkpoint)
    if processes.is_main:
        for place in (folder.path, *filter(Path.is_dir, vars(folder).values())):
            remove_leftovers(place)
        folder.write_config(config)
        folder.forget_after(step)
        folder.append_metrics({"step": step, "kind": "resume", "command": list(command)})
    processes.wait()
    return loop.fit()
