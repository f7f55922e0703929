"""The sections of a recipe that a run of anything has, `train` and `run`, checked on construction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch

from litevae_kernels.checks import check_choice, check_int, check_number, wrong_value

AUTOCAST_DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class ConfigError(Exception):
    """A recipe, key or value that a run cannot have; the message is one line and names the way out."""


@dataclass
class LoopConfig:
    """The keys of the `train` section that every run has; each kind of training adds its own."""

    steps: int = 200_000
    """Updates, of the whole run."""
    batch_size: int = 16
    """Samples per update, over all processes and accumulation steps: a run means the same on one GPU and on eight."""
    accumulation: int = 1
    """Gradient accumulation steps: less memory, the same gradient."""
    learning_rate: float = 1e-4
    """Of Adam; the paper's (appendix F)."""
    betas: list[float] = field(default_factory=lambda: [0.5, 0.9])
    """Of Adam; the paper's."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    schedule: str = "constant"
    """Then `constant`, or `cosine` down to 0 at `train.steps`."""
    max_gradient_norm: float | None = None
    """Longer gradients are clipped to this norm, each network's by itself; null: no clipping."""
    ema_decay: float = 0.0
    """Of a moving average of the weights, e.g. 0.999, which is then what is evaluated and kept; 0: none."""
    seed: int = 0
    """Of weights, crops and the posterior's noise."""
    device: str = "auto"
    """`cuda`, `cpu`, or whichever is there."""
    mixed_precision: str = "float32"
    """`bf16`, `fp16`: autocast around the networks; parameters, losses and Adam stay float32."""
    start_from: str | None = None
    """A run or a model folder whose weights this run starts with; of a run its discriminator's too."""
    max_skipped_steps: int = 25
    """A step with a gradient that is not finite is skipped; after so many in a row the run ends."""
    log_every: int = 50
    """Steps per line of metrics.jsonl; its losses are means over them."""
    evaluate_every: int = 5_000
    """Steps between two measurements on the held-out images."""
    checkpoint_every: int = 5_000
    """Steps between two checkpoints."""
    keep_checkpoints: int = 2
    """The newest so many stay on disk, and the best."""
    tensorboard: bool = True
    """Write `tensorboard/` too."""

    def __post_init__(self) -> None:
        if self.mixed_precision in ("no", "False"):  # the older name of float32, and what yaml reads it as
            self.mixed_precision = "float32"
        counts = ("steps", "batch_size", "accumulation", "log_every", "evaluate_every", "checkpoint_every")
        for name in (*counts, "keep_checkpoints", "max_skipped_steps"):
            check_int(f"train.{name}", getattr(self, name), at_least=1)
        if self.batch_size % self.accumulation:
            raise wrong_value("train.accumulation", f"divide train.batch_size {self.batch_size}", self.accumulation)
        for name in ("warmup_steps", "seed"):
            check_int(f"train.{name}", getattr(self, name), at_least=0)
        check_number("train.learning_rate", self.learning_rate, above=0)
        if self.max_gradient_norm is not None:
            check_number("train.max_gradient_norm", self.max_gradient_norm, above=0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise wrong_value("train.betas", "be two numbers, each at least 0 and below 1", self.betas)
        check_number("train.ema_decay", self.ema_decay, at_least=0, below=1)
        check_choice("train.schedule", self.schedule, ("constant", "cosine"))
        check_choice("train.device", self.device, ("auto", "cpu", "cuda"))
        check_choice("train.mixed_precision", self.mixed_precision, AUTOCAST_DTYPES)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype of autocast, None without."""
        return AUTOCAST_DTYPES[self.mixed_precision]

    @property
    def precision(self) -> str:
        """ "float32", or "bfloat16 autocast"."""
        return "float32" if self.autocast_dtype is None else f"{self.autocast_dtype} autocast".removeprefix("torch.")

    def schedule_of(self, step: int) -> float:
        """Factor of the learning rate for the update after `step` finished ones: warm-up, then constant or cosine."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return warmup * decay


@dataclass
class RunSection:
    """The `run` section."""

    dir: str | None = None
    """The run's folder; null: `runs/<recipe>`. A folder that holds a run is refused."""


class Config(Protocol):
    """Everything a run is told: a dataclass of sections, each a dataclass, `train` and `run` among them."""

    kind: ClassVar[str]
    """Of what is trained, as a recipe's `kind` says it."""
    fixed_sections: ClassVar[Sequence[str]]
    """A run that is resumed with others is another run."""

    @property
    def train(self) -> LoopConfig: ...
    @property
    def run(self) -> RunSection: ...
    def as_dict(self) -> dict[str, dict[str, object]]:
        """Plain values for config.yaml."""
