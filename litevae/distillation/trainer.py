"""The run of a distillation: the loop of litevae/runs/loop.py over a frozen teacher and its student.

image -> [teacher's posterior, student's posterior -> decoder -> losses]
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevae.data import Batches, DataError, TrainingData, open_data
from litevae.distillation.config import DistillationConfig
from litevae.distillation.evaluation import Comparison, compare
from litevae.distillation.losses import DistillationLoss
from litevae.distillation.model_card import run_facts
from litevae.distillation.networks import DistillationNetworks
from litevae.distillation.report import DistillationFolder, conclusion, introduction, write_curves, write_pictures
from litevae.distillation.start import CROPS_AT_ONCE, MEASURED_CROPS, fit_last_layer, measure_stds
from litevae.distillation.teacher import Load, Teacher, open_teacher
from litevae.distillation.update import DistillationUpdate
from litevae.losses.perceptual import build_perceptual
from litevae.models.model_card import keep_own_card
from litevae.runs.checkpoint import Checkpoint, load_newest_checkpoint, load_state
from litevae.runs.config import ConfigError
from litevae.runs.loop import Loop
from litevae.runs.processes import Processes
from litevae_kernels.checks import wrong_value
from litevae_kernels.files import replacing
from litevae_kernels.precision import warn_where_emulated


class DistillationTrainer(Loop):
    """The distillation's kind of run. `load`, which the command sets: (path, subfolder) -> an autoencoder."""

    schema = DistillationConfig
    folder_type = DistillationFolder
    learner_names = {"student": "student's encoder", "decoder": "decoder"}  # noqa: RUF012
    score = "psnr"
    snapshot_keys = ("model", "ema", "optimizers", "scalers", "stds", "teacher")
    breaks_run = (DataError,)
    config: DistillationConfig
    folder: DistillationFolder
    load_autoencoder: Load

    def __init__(self, config: DistillationConfig, folder: DistillationFolder, processes: Processes) -> None:
        super().__init__(config, folder, processes)
        with processes.local_main_first():
            self.teacher: Teacher = open_teacher(config, type(self).load_autoencoder)
        self.identity = self.teacher.identity
        self.teacher.model.to(processes.device)
        self.data: TrainingData = open_data(config.data, config.train.seed)
        self.networks = DistillationNetworks(config, self.teacher, processes)
        perceptual = None
        if config.loss.perceptual_weight:
            with processes.local_main_first():
                perceptual = build_perceptual(config.perceptual)
        try:
            stds = measure_stds(self.teacher, self._first_crops(), processes.device)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.loss = DistillationLoss(config.loss, torch.tensor(stds), perceptual).to(processes.device)
        if config.train.initialization == "least_squares" and config.train.start_from is None:
            fit_last_layer(self.networks.encoder, self.teacher, self._first_crops(), processes.device)
        self.networks.begin()
        self.learners = self.networks.learners
        self.update = DistillationUpdate(config, self.teacher, self.networks, self.loss, processes)
        self.latest: Comparison

    def _first_crops(self) -> Batches:
        return self.data.first_crops(MEASURED_CROPS, CROPS_AT_ONCE)

    def introduce(self) -> None:
        run = (self.config, self.networks, self.teacher, self.processes, self.data, self.loss, self.step)
        self.say(introduction(*run))
        for dtype in (self.config.train.autocast_dtype, self.config.teacher.autocast_dtype):
            warn_where_emulated(dtype, self.processes.device.type)

    def open_batches(self) -> Batches:
        train, processes = self.config.train, self.processes
        return self.data.batches(
            first_step=self.step,
            last_step=train.steps,
            batch_size=train.batch_size,
            rank=processes.rank,
            world_size=processes.world_size,
            pin_memory=processes.device.type == "cuda",
            state=self.positions or None,
        )

    def measure(self) -> dict[str, Any]:
        """The held-out images by teacher and student; of the averaged weights, if there are any."""
        self.latest = compare(self.networks.kept, self.teacher, self.data.held_out, self.processes.device)
        write_pictures(self.folder.grids / f"step-{self.step:06d}.png", self.latest, self.step)
        means = self.latest.means
        self.progress.show_score(f"{means['psnr']:.2f} dB (teacher {means['teacher_psnr']:.2f})")
        changed = sorted(self.data.held_out.changed)
        return self.latest.as_metrics(self.step) | ({"changed": changed} if changed else {})

    def write_results(self) -> None:
        write_curves(self.folder)
        write_pictures(self.folder.pictures, self.latest, self.step)
        with replacing(self.folder.model) as temporary:
            facts = run_facts(self.config, self.teacher, self.data.description, self.latest)
            self.networks.kept.save_pretrained(temporary, about=facts)
            keep_own_card(self.folder.model, temporary)
        self.say(conclusion(self.folder, self.latest))

    def snapshot(self) -> dict[str, Any]:
        """The parts that learn alone: a decoder that stays is the teacher's."""
        networks = self.networks
        return {
            "model": self._states(networks.model),
            "ema": None if networks.ema is None else self._states(networks.ema),
            "optimizers": [learner.optimizer.state_dict() for learner in networks.learners],
            "scalers": [learner.scaler.state_dict() for learner in networks.learners],
            "stds": self.loss.stds.flatten().tolist(),
            "teacher": self.identity,
        }

    def _states(self, hybrid: Any) -> list[dict[str, Tensor]]:
        return [part.state_dict() for part in self.networks.parts(hybrid)]

    def load(self, checkpoint: Checkpoint) -> None:
        where = str(self.folder.checkpoints)
        self._check_teacher(checkpoint, where)
        if len(checkpoint["model"]) > len(self.learners):
            rule, got = f"stay a number as when {where} was written, with a decoder that had begun to learn", None
            raise ConfigError(str(wrong_value("train.decoder_start", rule, got)))
        self._load_weights(checkpoint, where)
        self.loss.stds.copy_(torch.tensor(checkpoint["stds"]).view_as(self.loss.stds))
        states = zip(self.learners, checkpoint["optimizers"], checkpoint["scalers"], strict=False)
        for learner, optimizer, scaler in states:
            learner.restore(optimizer, scaler)

    def _check_teacher(self, checkpoint: Checkpoint, where: str) -> None:
        if checkpoint["teacher"] != self.identity:
            rule = f"be the teacher that {where} was trained with, {checkpoint['teacher']}"
            got = f"{self.teacher.name}, {self.identity}"
            raise ConfigError(str(wrong_value("teacher.path", rule, got, "learn from another one in a new run")))

    def start_from(self, path: Path) -> str:
        """The encoder of another distillation, or of a saved LiteVAE or HybridAutoencoder."""
        path = path.expanduser()
        if (path / "checkpoints").is_dir() and not (path / "model").is_dir():
            checkpoint = load_newest_checkpoint(path / "checkpoints", self.snapshot_keys)
            state, loaded = (checkpoint["ema"] or checkpoint["model"])[0], f"{path} at step {checkpoint['step']}"
        else:
            state, loaded = self._saved_encoder(path), f"the encoder of {path}"
        for hybrid in filter(None, (self.networks.model, self.networks.ema)):
            load_state(hybrid.encoder, state, str(path), "encoder")
        return loaded

    def _saved_encoder(self, path: Path) -> dict[str, Tensor]:
        try:
            model: Any = type(self).load_autoencoder(str(path), None)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"train.start_from: {error}") from None
        if not isinstance(getattr(model, "encoder", None), type(self.networks.encoder)):
            rule = "name a distillation's run, a LiteVAE or a HybridAutoencoder"
            raise ConfigError(str(wrong_value("train.start_from", rule, f"{path}, a {type(model).__name__}")))
        state: dict[str, Tensor] = model.encoder.state_dict()
        return state

    def _load_weights(self, checkpoint: Checkpoint, where: str) -> None:
        """What did not learn then starts from the teacher."""
        networks = self.networks
        for hybrid, states in ((networks.model, checkpoint["model"]), (networks.ema, checkpoint["ema"])):
            states = checkpoint["model"] if states is None else states
            if hybrid is not None:
                for part, state in zip(networks.parts(hybrid), states, strict=False):
                    load_state(part, state, where)
