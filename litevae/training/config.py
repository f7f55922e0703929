"""What can a run be told? The config of a run, section by section, checked on construction.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

litevae/configs/README.md is the user's page about it; litevae/training/recipes.py reads yaml and overrides into it.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import torch

from litevae.config import LiteVAEConfig, preset
from litevae.data.config import DataConfig
from litevae.losses.total import LossConfig


class ConfigError(Exception):
    """A recipe, key or value that a run cannot have; the message is one line and names the way out."""


@dataclass
class ModelConfig:
    """The `model` section: a size of the paper, and whatever shall differ from it.

    Every field but `size` is an argument of `LiteVAEConfig`, where it is explained; None leaves the size's own.
    """

    size: str = "B"
    in_channels: int | None = None
    out_channels: int | None = None
    latent_channels: int | None = None
    extraction_channels: int | None = None
    extraction_multipliers: list[int] | None = None
    aggregation_channels: int | None = None
    aggregation_multipliers: list[int] | None = None
    block_out_channels: list[int] | None = None
    layers_per_block: int | None = None
    decoder_normalization: str | None = None
    decoder_outer_norm: bool | None = None
    mid_block_add_attention: bool | None = None
    output_type: str | None = None
    use_quant_conv: bool | None = None
    dropout: float | None = None
    scaling_factor: float | None = None
    shift_factor: float | None = None
    force_upcast: bool | None = None

    def __post_init__(self) -> None:
        try:
            architecture = self.architecture
        except (TypeError, ValueError) as error:
            text = str(error)
            raise ValueError(f"model.{'size' + text[4:] if text.startswith('name ') else text}") from None
        if (architecture.in_channels, architecture.out_channels) != (3, 3):
            raise ValueError("model.in_channels and model.out_channels must be 3 for training, which reads RGB images")

    @property
    def overrides(self) -> dict[str, object]:
        """What was set beside `size`."""
        values = {name: value for name, value in vars(self).items() if name != "size" and value is not None}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    @property
    def architecture(self) -> LiteVAEConfig:
        """The complete, checked arguments of `LiteVAE`."""
        return preset(self.size, **self.overrides)


@dataclass
class TrainConfig:
    """The `train` section. The defaults are the paper's (appendix F) where it gives them."""

    steps: int = 200_000
    batch_size: int = 16
    learning_rate: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.5, 0.9])
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    schedule: str = "constant"
    """"constant", or "cosine": the learning rate falls to 0 at `steps`."""
    seed: int = 0
    """Of the weights, the crops and the posterior's noise."""
    device: str = "auto"
    """"auto": CUDA if there is one, else the CPU."""
    mixed_precision: str = "no"
    """"no": float32. "bf16": autocast to bfloat16 around the model; parameters, losses and Adam stay float32."""
    initialization: str = "residual"
    """"residual": a nearly linear autoencoder with little posterior noise. "pytorch": each layer's own default."""
    log_every: int = 50
    evaluate_every: int = 5_000
    checkpoint_every: int = 5_000
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        if self.mixed_precision == "False":  # what yaml makes of a bare no
            self.mixed_precision = "no"
        counts = ("steps", "batch_size", "log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must be at least 0, got {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"train.learning_rate must be greater than 0, got {self.learning_rate}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"train.betas must be two numbers, each at least 0 and less than 1, got {self.betas}")
        choices = {
            "schedule": ("constant", "cosine"),
            "device": ("auto", "cpu", "cuda"),
            "mixed_precision": ("no", "bf16"),
            "initialization": ("residual", "pytorch"),
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"train.{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")

    def torch_device(self) -> torch.device:
        """The device that `device` means on this machine.

        Raises:
            ConfigError: CUDA is asked for and not there.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("train.device=cuda needs a CUDA GPU and a CUDA build of torch; use train.device=cpu")
        name = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(name if self.device == "auto" else self.device)

    def learning_rate_of(self, step: int) -> float:
        """The learning rate of the update that follows `step` finished ones: warm-up, then constant or cosine."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return self.learning_rate * warm * fall


@dataclass
class RunSection:
    """The `run` section."""

    dir: str | None = None
    """The run's folder. None: runs/<name of the recipe or yaml>. A folder that holds a run is never written over."""


@dataclass
class RunConfig:
    """Everything a run is told. The same config on the same machine gives the same run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunSection = field(default_factory=RunSection)

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Plain values for config.yaml; what the model section leaves to its size is left out."""
        sections = dataclasses.asdict(self)
        sections["model"] = {name: value for name, value in sections["model"].items() if value is not None}
        return sections
