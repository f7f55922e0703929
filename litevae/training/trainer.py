"""An autoencoder's run: its data, networks and held-out images in the loop of litevae/runs/loop.py.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from litevae.data import Batches, DataError, open_data
from litevae.evaluation.autoencoders import BicubicBaseline
from litevae.evaluation.held_out import Evaluation, bicubic_baseline, evaluate
from litevae.evaluation.instruments import Instruments, SizeInstruments
from litevae.evaluation.latents import NoScaleError
from litevae.evaluation.weights import WeightSource
from litevae.losses.perceptual import PerceptualConfig, build_perceptual
from litevae.runs.checkpoint import Checkpoint
from litevae.runs.loop import Loop
from litevae.runs.processes import Processes
from litevae.training.config import RunConfig
from litevae.training.latent_scale import fixed_scale, measure_scale, write_scale
from litevae.training.model_card import run_facts
from litevae.training.networks import Networks
from litevae.training.report import AutoencoderFolder, conclusion, introduction, pictures, write_grid, write_results
from litevae.training.snapshot import KEYS, restore, snapshot, start_from
from litevae.training.update import Update
from litevae_kernels.precision import warn_where_emulated


class Trainer(Loop):
    """The autoencoder's kind of run."""

    schema = RunConfig
    folder_type = AutoencoderFolder
    learner_names = {"generator": "autoencoder", "discriminator": "discriminator"}  # noqa: RUF012
    score = "psnr"
    snapshot_keys = KEYS
    breaks_run = (DataError,)
    config: RunConfig
    folder: AutoencoderFolder

    def __init__(self, config: RunConfig, folder: AutoencoderFolder, processes: Processes) -> None:
        super().__init__(config, folder, processes)
        self.data = open_data(config.data, config.train.seed)
        self.networks = Networks(config, processes)
        self.learners = self.networks.learners
        self.update = Update(config, self.networks, processes)
        self.lpips = self._lpips() if config.evaluates_lpips and processes.is_main else None
        self.instruments = self._instruments() if config.train.evaluate_sets and processes.is_main else None
        self.latest: tuple[Evaluation, Evaluation | None]

    def introduce(self) -> None:
        about = (self.data.held_out, self.processes.device, self.lpips, self._sets())
        self.baseline = bicubic_baseline(*about, self.config.model.architecture.downsampling)
        for notice in self.baseline.notices:
            warnings.warn(notice, stacklevel=2)
        run = (self.config, self.networks, self.processes, self.data, self.step, self.baseline)
        self.say(introduction(*run, self.folder.latents()))
        warn_where_emulated(self.config.train.autocast_dtype, self.processes.device.type)

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
        """The held-out images: of the averaged weights, if there are any, and of the weights as they are."""
        networks, about = self.networks, (self.data.held_out, self.processes.device, self.lpips)
        raw = None if networks.ema is None else evaluate(networks.model, *about, sets=self._sets())
        evaluation = evaluate(networks.kept, *about, sets=self._sets())
        self.latest = evaluation, raw
        write_grid(self.folder.grids / f"step-{self.step:06d}.png", evaluation, raw, self.step)
        if self.tensorboard is not None:
            self.tensorboard.add_pictures(pictures(evaluation, with_originals=self.step == 0), self.step)
        self.progress.show_score(f"{evaluation.psnr:.2f} dB")
        changed = sorted(self.data.held_out.changed)
        return evaluation.as_metrics(self.step, raw) | ({"changed": changed} if changed else {})

    def write_results(self) -> None:
        evaluation, raw = self.latest
        latents = self._measure_scale()
        about = (self.data.description, evaluation, self.baseline)
        facts = run_facts(self.config, self.networks, self.folder, *about)
        write_results(self.folder, self.networks.kept, evaluation, raw, self.baseline, self.step, facts)
        self.say(conclusion(self.folder, evaluation, self.baseline, latents))

    def _measure_scale(self) -> dict[str, Any] | None:
        """Write the scale of the latents into the model that is kept, as far as they have one; returns the line."""
        kept, fixed = self.networks.kept, fixed_scale(self.config, self.networks.scale)
        try:
            line = measure_scale(self.config, kept, self.data, self.step, self.processes.device, fixed)
        except NoScaleError as error:
            warnings.warn(f"{error}; the model's scaling_factor is left as it was", stacklevel=2)
            line = None
        write_scale(kept, line, fixed)
        if line is not None:
            self.record(line)
        return line

    def snapshot(self) -> dict[str, Any]:
        return snapshot(self.networks)

    def load(self, checkpoint: Checkpoint) -> None:
        restore(self.networks, checkpoint, str(self.folder.checkpoints))

    def start_from(self, path: Path) -> str:
        return start_from(self.networks, path)

    def _instruments(self) -> Instruments:
        """What measures the held-out images as a set; with a random trunk for LPIPS its networks are random too."""
        source = WeightSource(random=self.config.perceptual.trunk == "random", options="")
        baseline = BicubicBaseline(self.processes.device)
        return Instruments(tuple(self.config.train.evaluate_sets), baseline, source)

    def _sets(self) -> SizeInstruments | None:
        """The metrics of one evaluation."""
        size = self.config.data.evaluation_size
        return None if self.instruments is None or size is None else self.instruments.at(size)

    def _lpips(self) -> nn.Module:
        """The LPIPS that held-out images are measured with: the loss's, if it is one."""
        perceptual = self.networks.loss.perceptual
        if perceptual is not None and self.config.perceptual.kind == "lpips":
            return perceptual
        trunk = PerceptualConfig(kind="lpips", trunk=self.config.perceptual.trunk)
        return build_perceptual(trunk).to(self.processes.device)
