"""What can a run be told? The config of a run, section by section, checked on construction.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

litevae/configs/README.md is the user's page about it; litevae/runs/recipes.py reads yaml and overrides into it.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import torch

from litevae.config import LiteVAEConfig, preset
from litevae.data.config import DataConfig
from litevae.losses.perceptual import PerceptualConfig
from litevae.losses.total import LossConfig
from litevae.models.discriminators.config import DiscriminatorConfig

MODEL_KINDS = ("litevae", "sd-vae")
# What Stable Diffusion's autoencoder has of the model section.
SD_VAE_KEYS = ("latent_channels", "block_out_channels", "layers_per_block", "use_quant_conv", "scaling_factor")


class ConfigError(Exception):
    """A recipe, key or value that a run cannot have; the message is one line and names the way out."""


@dataclass
class ModelConfig:
    """The `model` section: a size of the paper, and whatever shall differ from it.

    Every field but `kind`, `size` and `encoder_channels` is an argument of `LiteVAEConfig`, where it is explained;
    None leaves the size's own.
    """

    kind: str = "litevae"
    """"litevae", or "sd-vae": the baseline, diffusers' AutoencoderKL under the same recipe."""
    size: str = "B"
    encoder_channels: list[int] | None = None
    """sd-vae alone: widths of the encoder, where they are not the decoder's `block_out_channels` (Table 2b)."""
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
        if self.kind not in MODEL_KINDS:
            raise ValueError(f"model.kind must be one of {', '.join(MODEL_KINDS)}, got {self.kind!r}")
        if self.kind == "litevae" and self.encoder_channels is not None:
            raise ValueError("model.encoder_channels must be null unless model.kind=sd-vae")
        if self.kind == "sd-vae":
            for name in self.overrides:
                if name not in SD_VAE_KEYS:
                    raise ValueError(
                        f"model.{name} must be left out with model.kind=sd-vae, which has no such argument"
                    )
        try:
            architecture = self.architecture
        except (TypeError, ValueError) as error:
            text = str(error)
            raise ValueError(f"model.{'size' + text[4:] if text.startswith('name ') else text}") from None
        if (architecture.in_channels, architecture.out_channels) != (3, 3):
            raise ValueError("model.in_channels and model.out_channels must be 3 for training, which reads RGB images")

    @property
    def overrides(self) -> dict[str, object]:
        """What was set of `LiteVAEConfig`'s arguments."""
        own = ("kind", "size", "encoder_channels")
        values = {name: value for name, value in vars(self).items() if name not in own and value is not None}
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
    """Crops per update, over all processes and accumulation slices: a run means the same on one GPU and on eight."""
    accumulation: int = 1
    """Slices that a process takes its part of the batch in, one after the other: less memory, the same gradient."""
    learning_rate: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.5, 0.9])
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    schedule: str = "constant"
    """"constant", or "cosine": the learning rate falls to 0 at `steps`."""
    max_gradient_norm: float | None = None
    """Longer gradients are shortened to this norm (each network's by itself). None: none are."""
    ema_decay: float = 0.0
    """Of the moving average of the model's weights, e.g. 0.999; it is what is evaluated and kept. 0: none."""
    seed: int = 0
    """Of the weights, the crops and the posterior's noise."""
    device: str = "auto"
    """"auto": CUDA if there is one, else the CPU."""
    mixed_precision: str = "no"
    """"no": float32. "bf16", "fp16": autocast around the networks; parameters, losses and Adam stay float32."""
    gradient_checkpointing: bool = False
    """Compute the ResBlocks a second time in the backward pass instead of keeping their activations."""
    compile: bool = False
    """torch.compile encoder, decoder, discriminator and perceptual network."""
    initialization: str = "residual"
    """"residual": a nearly linear autoencoder with little posterior noise. "pytorch": each layer's own default."""
    start_from: str | None = None
    """A run (its weights, the discriminator's too) or a model folder whose weights this run starts with."""
    max_skipped_steps: int = 25
    """A step with a gradient that is not finite is skipped; after so many in a row the run ends."""
    evaluate_lpips: bool | None = None
    """Measure LPIPS of the held-out images. None: if the loss has it."""
    log_every: int = 50
    evaluate_every: int = 5_000
    checkpoint_every: int = 5_000
    keep_checkpoints: int = 2
    """The newest so many stay on disk, and the best."""
    tensorboard: bool = True

    def __post_init__(self) -> None:
        if self.mixed_precision == "False":  # what yaml makes of a bare no
            self.mixed_precision = "no"
        counts = ("steps", "batch_size", "accumulation", "log_every", "evaluate_every", "checkpoint_every")
        for name in (*counts, "keep_checkpoints", "max_skipped_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"train.accumulation must divide train.batch_size {self.batch_size}, got {self.accumulation}"
            )
        for name in ("warmup_steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must be at least 0, got {getattr(self, name)}")
        for name in ("learning_rate", "max_gradient_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"train.{name} must be greater than 0, got {value}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"train.betas must be two numbers, each at least 0 and less than 1, got {self.betas}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay must be at least 0 and less than 1, got {self.ema_decay}")
        choices = {
            "schedule": ("constant", "cosine"),
            "device": ("auto", "cpu", "cuda"),
            "mixed_precision": ("no", "bf16", "fp16"),
            "initialization": ("residual", "pytorch"),
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"train.{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype of autocast, None without."""
        return {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.mixed_precision]

    def schedule_of(self, step: int) -> float:
        """Factor of the learning rate for the update after `step` finished ones: warm-up, then constant or cosine."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return warm * fall


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
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        if self.loss.ldl_weight and not self.train.ema_decay:
            raise ValueError("loss.ldl_weight needs the averaged model: set train.ema_decay, e.g. 0.999")
        if self.train.compile and self.loss.adversarial_weighting == "adaptive":
            raise ValueError(
                "train.compile must be false with loss.adversarial_weighting=adaptive, which takes gradients of one "
                "graph twice, as compiled code cannot"
            )

    @property
    def has_discriminator(self) -> bool:
        return self.loss.adversarial_weight > 0

    @property
    def evaluates_lpips(self) -> bool:
        """`train.evaluate_lpips`, with None resolved."""
        has_lpips = self.loss.perceptual_weight > 0 and self.perceptual.kind == "lpips"
        return has_lpips if self.train.evaluate_lpips is None else self.train.evaluate_lpips

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Plain values for config.yaml; what the model section leaves to its size is left out."""
        sections = dataclasses.asdict(self)
        sections["model"] = {name: value for name, value in sections["model"].items() if value is not None}
        return sections
